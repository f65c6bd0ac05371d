"""Train the demo SAM for a person who clicks, from the weights of train_sam.

It learns the prompts that train_sam left out, as SAM learnt them: boxes, several clicks, the mask so far as a prompt,
and the single mask, which answers all of these. The best of three still answers a single click. A step sees a few
pictures and goes through some turns with the user of each (maskrt.export.demo.clicking). The pictures are drawn shapes
(maskrt.export.demo.shapes), from which it learns clicking on any thing, and bedside scenes, whole or cut to the region
of interest. The image encoder learns too, with the batch statistics that it has. Arithmetic is in bfloat16, weights are
in float32.

The seed determines the data. The clock ends the run, so weights differ from run to run.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.architectures.sam import SamConfig, build_sam
from maskrt.export.bundles.sams import read_sam
from maskrt.export.demo.clicking import Episode, begin, go_on
from maskrt.export.demo.model import save_half
from maskrt.export.demo.prompts import Batch, Draw, batches
from maskrt.export.demo.scenes_data import SceneViews, View, kinds_of, load_scenes
from maskrt.export.demo.shapes import KINDS, draw_shapes
from maskrt.export.demo.train_sam import Agreement, MaskPredictor, encode, mask_loss, train, upscale

PICTURES, PROMPTS = 2, 8  # of a step, and objects of a picture
SHARES = {"shapes": 0.7, "regions": 0.2, "whole": 0.1}  # of the pictures
SIZE = 384  # of the pictures: the masks' side is a quarter of it
PEAK = 6e-4
NAME = "sam_clicks"
Predict = Callable[..., tuple[Tensor, Tensor]]


class ClickStage(nn.Module):
    """SAM's training step for all turns of an episode with each picture, with dense supervision."""

    def __init__(self, sam: Any, rng: np.random.Generator) -> None:
        super().__init__()
        self.sam = sam
        self.decoder = MaskPredictor(sam.mask_decoder)
        self.agreement = Agreement(sam.prompt_encoder.embed_dim // 8)
        self.rng = rng

    def train(self, mode: bool = True) -> "ClickStage":
        """Set the mode, but keep the batch statistics: those of two pictures would be a guess."""
        super().train(mode)
        self.sam.image_encoder.eval()
        return self

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss, and the IoU of each answer, which is chosen as in the runtime."""
        predict, place = self.decoder.in_bfloat16(), self.sam.prompt_encoder.get_dense_pe()
        embeddings = encode(self.sam, batch).float()
        losses, ious = [], []
        for index in range(len(embeddings)):
            episode = begin(picture_of(batch, index), embeddings[index : index + 1], self.rng)
            while True:
                loss, iou = self._answer(episode, predict, place)
                losses.append(loss)
                ious.append(iou)
                if not episode.turns:
                    break
                episode = go_on(episode, self.rng)
        agreement, _ = self.agreement(upscale(self.sam, embeddings), batch)
        return torch.stack(losses).mean() + 0.5 * agreement.mean(), torch.cat(ious)

    def _answer(self, episode: Episode, predict: Predict, place: Tensor) -> tuple[Tensor, Tensor]:
        points = (episode.points, episode.labels) if episode.labels.shape[1] else None
        masks, predicted = predict(
            episode.embedding, place, *self.sam.prompt_encoder(points, episode.boxes, episode.hint)
        )
        if episode.ambiguous:
            losses, iou = mask_loss(masks, episode.targets)
            chosen = 1 + predicted[:, 1:].argmax(1)
            # A small share for all keeps every mask token learning, and the single mask near the best of three.
            loss = losses[:, 1:].min(1).values.mean() + 0.05 * losses.mean()
        else:
            masks, predicted = masks[:, :1], predicted[:, :1]
            losses, iou = mask_loss(masks, episode.targets)
            chosen = torch.zeros(len(masks), dtype=torch.int64)
            loss = losses.mean()
        rows = torch.arange(len(masks))
        episode.logits = masks[rows, chosen].detach()
        return loss + 4 * functional.mse_loss(predicted, iou), iou[rows, chosen]


@torch.no_grad()
def start_untrained(sam: Any, first: int) -> None:
    """Start the weights that train_sam left random: a mask prompt hardly matters, the single mask is mask `first`."""
    decoder, last = sam.mask_decoder, sam.prompt_encoder.mask_downscaling[-1]
    last.weight *= 0.3
    last.bias.copy_(sam.prompt_encoder.no_mask_embed.weight[0])
    decoder.mask_tokens.weight[0] = decoder.mask_tokens.weight[first]
    decoder.output_hypernetworks_mlps[0].load_state_dict(decoder.output_hypernetworks_mlps[first].state_dict())
    for values in decoder.iou_prediction_head.layers[-1].parameters():
        values[0] = values[first]


@torch.no_grad()
def most_chosen(sam: Any, batch: Batch) -> int:
    """Return the mask, 1 to 3, that answers a single point most often."""
    first = picture_of(batch, 0)
    sparse, dense = sam.prompt_encoder((first["points"], first["labels"]), None, None)
    place = sam.prompt_encoder.get_dense_pe()
    _, predicted = sam.mask_decoder.predict_masks(encode(sam, batch)[:1].float(), place, sparse, dense)
    return 1 + int(predicted[:, 1:].argmax(1).bincount(minlength=3).argmax())


def picture_of(batch: Batch, index: int) -> Batch:
    """Return one picture of a batch."""
    count = len(batch["points"]) // len(batch["images"])
    alone = {name: batch[name][index * count : (index + 1) * count] for name in ("points", "labels", "targets")}
    return {**alone, "kinds": batch["kinds"][index : index + 1]}


@dataclass(frozen=True)
class Mixture:
    """Draws from several sources, each with its share."""

    sources: Sequence[Draw]
    shares: Sequence[float]

    def __call__(self, rng: np.random.Generator) -> View:
        """Draw the next picture."""
        return self.sources[rng.choice(len(self.sources), p=self.shares)](rng)


def resized(sam: Any, config: SamConfig, size: int) -> tuple[Any, SamConfig]:
    """Return the same SAM for pictures of another size, with the encodings of row and column interpolated."""
    config = msgspec.structs.replace(config, image_size=size)
    state, other = sam.state_dict(), build_sam(config)
    for name in ("image_encoder.rows", "image_encoder.columns"):
        sides = other.state_dict()[name].shape[-2:]
        state[name] = functional.interpolate(state[name], sides, mode="bilinear", align_corners=False)
    other.load_state_dict(state)
    return other, config


def main() -> None:
    """Train and write sam_clicks.safetensors with sam_clicks.json beside it."""
    parser = argparse.ArgumentParser(description="Train the demo SAM for clicks on scenes written by `maskrt scenes`.")
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--sam", type=Path, required=True, help="sam.safetensors of train_sam, sam.json beside it")
    parser.add_argument("--go-on", action="store_true", help=f"--sam is {NAME}.safetensors of an earlier run")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {NAME}.safetensors and {NAME}.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--threads", type=int, help="of PyTorch, all cores where not given")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    sam, config = resized(*read_sam(f"custom:{options.sam}"), SIZE)
    sam.image_encoder.to(memory_format=torch.channels_last)
    regions, whole = (load_scenes(options.scenes, SIZE, whole=whole) for whole in (False, True))
    draw = Mixture(
        [partial(draw_shapes, SIZE), SceneViews(regions, SIZE), SceneViews(whole, SIZE)], list(SHARES.values())
    )
    source = batches(draw, sorted({*KINDS, *kinds_of(regions), *kinds_of(whole)}), PICTURES, PROMPTS, options.seed)
    if not options.go_on:
        start_untrained(sam, most_chosen(sam, next(source)))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{NAME}.json").write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")

    def save() -> None:
        save_half(sam, options.out / f"{NAME}.safetensors")

    stage = ClickStage(sam, np.random.default_rng(options.seed))
    train("clicks", stage, source, PEAK, options.minutes, save, [], 1.0)


if __name__ == "__main__":
    main()
