"""Measure a SAM on scenes with a simulated user, who clicks where the largest error is deepest.

It runs in PyTorch, on pictures of the network's input size, and serves to choose weights. `maskrt eval-interactive`
measures bundles.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from maskrt.export.architectures.sam import PIXEL_MEAN, PIXEL_STD
from maskrt.export.bundles.sams import read_sam
from maskrt.export.demo.clicking import innermost
from maskrt.export.demo.scenes_data import TrainingScene, load_scenes

CLICKS, MIN_AREA, GOAL = 20, 100, 0.85
SHOWN = (1, 3, 5, 10, 20)


@torch.no_grad()
def measure(sam: Any, scenes: Sequence[TrainingScene], clicks: int = CLICKS) -> NDArray[np.float64]:
    """Return the IoU [objects, clicks] of every object of at least MIN_AREA pixels after each click."""
    return np.concatenate([_measure_scene(sam, scene, clicks) for scene in scenes])


def _measure_scene(sam: Any, scene: TrainingScene, clicks: int) -> NDArray[np.float64]:
    identities, areas = np.unique(scene.instances, return_counts=True)
    truths = np.stack([scene.instances == identity for identity in identities[areas >= MIN_AREA]])
    embedding, answers = _embed(sam, scene.rgb), np.zeros_like(truths)
    points, labels = torch.empty(len(truths), 0, 2), torch.empty(len(truths), 0)
    hint: Tensor | None = None
    found = []
    for _ in range(clicks):
        new = [_next_click(truth, answer) for truth, answer in zip(truths, answers, strict=True)]
        points = torch.cat([points, torch.tensor([[click[:2]] for click in new], dtype=torch.float32)], 1)
        labels = torch.cat([labels, torch.tensor([[float(click[2])] for click in new])], 1)
        hint = _predict(sam, embedding, points, labels, hint)
        side = sam.image_encoder.img_size
        full = functional.interpolate(hint, (side, side), mode="bilinear", align_corners=False)[:, 0]
        answers = (full > 0).numpy()[:, : truths.shape[1], : truths.shape[2]]
        found.append((truths & answers).sum((1, 2)) / (truths | answers).sum((1, 2)))
    return np.stack(found, 1)


def _predict(sam: Any, embedding: Tensor, points: Tensor, labels: Tensor, hint: Tensor | None) -> Tensor:
    """Return low-res logits [P, 1, h, w]: the best of three by predicted IoU for one click, else the single mask."""
    sparse, dense = sam.prompt_encoder((points, labels), None, hint)
    masks, predicted = sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense)
    chosen = 1 + predicted[:, 1:].argmax(1) if hint is None else torch.zeros(len(masks), dtype=torch.int64)
    logits: Tensor = masks[torch.arange(len(masks)), chosen][:, None]
    return logits


def _next_click(truth: NDArray[np.bool_], answer: NDArray[np.bool_]) -> tuple[int, int, bool]:
    (missed, inside), (surplus, outside) = innermost(truth & ~answer), innermost(answer & ~truth)
    positive = missed > surplus
    row, column = divmod(inside if positive else outside, truth.shape[1])
    return column, row, positive


def _embed(sam: Any, rgb: NDArray[np.uint8]) -> Tensor:
    side = sam.image_encoder.img_size
    pixels = (rgb.astype(np.float32) - np.array(PIXEL_MEAN, np.float32)) / np.array(PIXEL_STD, np.float32)
    padded = np.pad(pixels, [(0, side - rgb.shape[0]), (0, side - rgb.shape[1]), (0, 0)])
    embedding: Tensor = sam.image_encoder(torch.from_numpy(padded.transpose(2, 0, 1)[None]).contiguous())
    return embedding


def main() -> None:
    """Print one line for each SAM."""
    parser = argparse.ArgumentParser(description="Click with a simulated user on scenes written by `maskrt scenes`.")
    parser.add_argument("sams", type=Path, nargs="+", metavar="SAM", help="FILE.safetensors, FILE.json beside it")
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--threads", type=int, help="of PyTorch, all cores where not given")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    for file in options.sams:
        sam, config = read_sam(f"custom:{file}")
        for whole in (False, True):
            iou = measure(sam, load_scenes(options.scenes, config.image_size, whole=whole))
            after = ", ".join(f"{count}: {iou[:, count - 1].mean():.3f}" for count in SHOWN)
            reached = (iou >= GOAL).any(1).mean()
            place = "whole pictures" if whole else "regions"
            print(
                f"{file}, {place}, {len(iou)} objects: IoU after {after}; {GOAL} reached by {reached:.1%}", flush=True
            )


if __name__ == "__main__":
    main()
