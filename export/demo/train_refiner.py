"""Train the demo refiner: a CRM of half the width without layer4, on pictures of at most 512 pixels.

Loss and normalisation are the public code's. Three things differ from it. There is a quarter of the dropout, since the
run is short. The optimiser is AdamW with one cosine period. Two thirds of the batches see the picture at a half, a
quarter or an eighth of the size of the mask that they decode, as the stages of a cascade do; the public code trains
with equal sizes only.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.architectures.crm import CrmConfig, CrmNet, build_crm
from maskrt.export.architectures.networks import load_into
from maskrt.export.demo.model import save_half
from maskrt.export.demo.rough_masks import draw_pair, roughen
from maskrt.export.demo.scenes_data import TrainingScene, jitter, load_scenes
from maskrt.export.demo.train_segmenter import MEAN, STD, protect_dilated
from maskrt.export.graphs.crm_graphs import decode_window, project
from maskrt.kernels.pixel_decoder.tables import axis_table

# Three stages: at an eighth of the scale, where the public cascade begins, these scenes' cables are no pixel wide.
DEMO_CRM = CrmConfig(width=32, blocks=(3, 4, 6, 0), scales=(0.25, 0.5, 1.0))
BATCH = 6
WINDOW = 144  # side of the decoded window: to decode all of the smallest picture takes longer than its features
# The size that the network reads over the one that it decodes, the side of the drawn picture, how many times smaller
# that picture is than the decoded one, and the share of the batches.
SCALES = ((1.0, 224, 1, 0.35), (0.5, 320, 1, 0.25), (0.25, 448, 1, 0.2), (0.125, 448, 2, 0.2))
REACH = 2.5  # error of a rough outline in pixels of the scale that is read
LONGEST_SIDE = 512  # of the scenes
PEAK, FLOOR = 1e-3, 1e-5

Batch = tuple[Tensor, Tensor, Tensor]


def batches(scenes: Sequence[TrainingScene], seed: int) -> Iterator[Batch]:
    """Yield batches without end. A thread draws the next one while the last one trains."""
    with ThreadPoolExecutor(1) as pool:
        step = 0
        ahead = pool.submit(draw_batch, scenes, (seed, step))
        while True:
            step += 1
            current, ahead = ahead, pool.submit(draw_batch, scenes, (seed, step))
            yield current.result()


def draw_batch(scenes: Sequence[TrainingScene], seed: tuple[int, int]) -> Batch:
    """Draw pictures with rough masks, at one scale for the batch.

    Returns:
        pixels float32 [B, 4, h, w] as the network reads them, rough masks and truth float32 [B, S, S].
    """
    rng = np.random.default_rng(seed)
    scale, side, shrunk, _ = SCALES[rng.choice(len(SCALES), p=[share for *_, share in SCALES])]
    reach = REACH / scale / shrunk
    pictures, roughs, truths = [], [], []
    for _ in range(BATCH):
        rgb, mask = draw_pair(scenes, side, shrunk, rng)
        pictures.append(
            ((jitter(rgb, rng) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)
        )
        roughs.append(roughen(mask, reach * rng.choice([1, 1, 2]), rng))
        truths.append(mask.astype(np.float32))
    picture, rough, truth = (torch.from_numpy(np.stack(a).astype(np.float32)) for a in (pictures, roughs, truths))
    pixels = torch.cat([picture, 2 * rough[:, None] - 1], dim=1)
    if scale < 1:
        read = round(side * shrunk * scale)
        pixels = functional.interpolate(pixels, (read, read), mode="bilinear", align_corners=True)
    if shrunk > 1:
        size = (side * shrunk, side * shrunk)
        rough, truth = (functional.interpolate(m[:, None], size, mode="bilinear")[:, 0] for m in (rough, truth))
        truth = (truth > 0.5).float()
    return pixels, rough, truth


def loss_of(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the public code's loss: cross-entropy, half of the probability's L1 and L2, twice its gradient's L1."""
    probability = logits.sigmoid()
    loss = functional.binary_cross_entropy_with_logits(logits, truth)
    loss = loss + 0.5 * functional.l1_loss(probability, truth) + 0.5 * functional.mse_loss(probability, truth)
    return loss + 2 * functional.l1_loss(_gradient(probability), _gradient(truth))


def _gradient(planes: Tensor) -> Tensor:
    """Return Sobel's gradient of planes [B, H, W] smoothed over 3 x 3."""
    across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]) / 4
    smooth = functional.avg_pool2d(planes[:, None], 3, 1, 1)
    both = functional.conv2d(smooth, torch.stack([across, across.T])[:, None], padding=1)
    return (both.square().sum(1) + 1e-4).sqrt()


def iou_of(masks: Tensor, truth: Tensor) -> float:
    """Return the IoU pooled over a batch."""
    found, wanted = masks > 0.5, truth > 0.5
    return float((found & wanted).sum() / (found | wanted).sum().clamp(min=1))


def fit(model: CrmNet, source: Iterator[Batch], minutes: float, seed: int = 0, peak: float = PEAK) -> None:
    """Train with AdamW over `minutes`, with a short warm-up and one cosine period."""
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    model.aspp_.dropout.p = 0.12
    protect_dilated(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=1e-4)
    rng = np.random.default_rng(seed)
    start, step = time.monotonic(), 0
    recent: list[tuple[float, float, float]] = []
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        rate = min(progress / 0.02, 0.5 * (1 + np.cos(np.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = FLOOR + (peak - FLOOR) * rate
        pixels, rough, truth = next(source)
        side = truth.shape[-1]
        top, left = rng.integers(0, side - WINDOW + 1, 2)
        part = (slice(None), slice(top, top + WINDOW), slice(left, left + WINDOW))
        with torch.autocast("cpu", torch.bfloat16):
            features = model.features(pixels.to(memory_format=torch.channels_last))
        features = features.float()
        rows = axis_table(side, features.shape[2]).part(top, top + WINDOW)
        columns = axis_table(side, features.shape[3]).part(left, left + WINDOW)
        logits = decode_window(model.imnet, project(model.imnet, features), rows, columns)
        loss = loss_of(logits, truth[part])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has not typed it
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        ious = iou_of(rough[part], truth[part]), iou_of(logits.detach().sigmoid(), truth[part])
        recent = [*recent[-99:], (loss.item(), *ious)]
        if step % 50 == 0:
            pace, (mean, before, after) = (time.monotonic() - start) / step, np.mean(recent, axis=0)
            print(f"refiner {step} loss {mean:.4f} IoU {before:.4f} -> {after:.4f} {pace:.2f} s/step", flush=True)


def main() -> None:
    """Train and write refiner.safetensors and refiner.json."""
    parser = argparse.ArgumentParser(description="Train the demo refiner on scenes written by `maskrt scenes`.")
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for refiner.safetensors")
    parser.add_argument("--minutes", type=float, default=70, help="length of the run")
    parser.add_argument("--start", type=Path, help="weights to go on from, in place of random ones")
    parser.add_argument("--peak", type=float, default=PEAK, help="learning rate after the warm-up")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = build_crm(DEMO_CRM)
    if options.start is not None:
        load_into(model, options.start)
    scenes = load_scenes(options.scenes, LONGEST_SIDE)
    options.out.mkdir(parents=True, exist_ok=True)
    fit(model, batches(scenes, options.seed), options.minutes, options.seed, options.peak)
    save_half(model, options.out / "refiner.safetensors")
    config = json.dumps(msgspec.to_builtins(DEMO_CRM), indent=2)
    (options.out / "refiner.json").write_text(config + "\n")


if __name__ == "__main__":
    main()
