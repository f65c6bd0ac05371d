"""Trains the demo SAM for a person who clicks: from what train_sam has trained, with the image encoder as it is.

What train_sam left out is learnt here, as SAM learnt it: boxes, several clicks, the mask so far as a prompt, and the
single mask, which answers all of these; a single click goes on to be answered by the best of three. Each step sees
several pictures at different turns of their users (maskrt.export.demo.clicking), half of them cut to the region of
interest as train_sam's were, half whole. Arithmetic in bfloat16, weights in float32.

Data are those of the seed; the run is as long as the clock says, so weights differ from run to run.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.demo.clicking import LIVE, Episode, episodes
from maskrt.export.demo.model import save_half
from maskrt.export.demo.prompts import Batch, batches
from maskrt.export.demo.scenes_data import load_scenes
from maskrt.export.demo.train_sam import MaskPredictor, encode, mask_loss, train
from maskrt.export.sams import read_sam

PROMPTS = 10  # objects of a picture
PEAK = 8e-4
NAME = "sam_clicks"
Predict = Callable[..., tuple[Tensor, Tensor]]


class ClickStage(nn.Module):
    """SAM's training step for one turn of several episodes; writes each one's answer into it."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.prompts = sam.prompt_encoder
        self.decoder = MaskPredictor(sam.mask_decoder)

    def forward(self, turn: list[Episode]) -> tuple[Tensor, Tensor]:
        """Loss, and the IoU of each answer, which is chosen as the runtime chooses: by predicted IoU, or the single."""
        predict, place = self.decoder.in_bfloat16(), self.prompts.get_dense_pe()
        losses, ious = zip(*(self._answer(episode, predict, place) for episode in turn), strict=True)
        return torch.stack(losses).mean(), torch.cat(ious)

    def _answer(self, episode: Episode, predict: Predict, place: Tensor) -> tuple[Tensor, Tensor]:
        points = (episode.points, episode.labels) if episode.labels.shape[1] else None
        masks, predicted = predict(episode.embedding, place, *self.prompts(points, episode.boxes, episode.hint))
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
    """Give what train_sam left at random a start: a mask prompt hardly matters, the single mask is mask `first`."""
    decoder, last = sam.mask_decoder, sam.prompt_encoder.mask_downscaling[-1]
    last.weight *= 0.3
    last.bias.copy_(sam.prompt_encoder.no_mask_embed.weight[0])
    decoder.mask_tokens.weight[0] = decoder.mask_tokens.weight[first]
    decoder.output_hypernetworks_mlps[0].load_state_dict(decoder.output_hypernetworks_mlps[first].state_dict())
    for values in decoder.iou_prediction_head.layers[-1].parameters():
        values[0] = values[first]


@torch.no_grad()
def most_chosen(sam: Any, batch: Batch) -> int:
    """The mask, 1 to 3, that answers a single point most often."""
    sparse, dense = sam.prompt_encoder((batch["points"], batch["labels"]), None, None)
    place = sam.prompt_encoder.get_dense_pe()
    _, predicted = sam.mask_decoder.predict_masks(embed(sam, batch), place, sparse, dense)
    return 1 + int(predicted[:, 1:].argmax(1).bincount(minlength=3).argmax())


@torch.no_grad()
def embed(sam: Any, batch: Batch) -> Tensor:
    """Image embeddings of a batch, float32, of an encoder that does not learn."""
    return encode(sam, batch).float()


def alternate(*sources: Iterator[Batch]) -> Iterator[Batch]:
    """From each in turn."""
    while True:
        yield from map(next, sources)


def main() -> None:
    """Train and write sam_clicks.safetensors with sam_clicks.json beside it."""
    parser = argparse.ArgumentParser(description="Train the demo SAM for clicks on scenes written by `maskrt scenes`.")
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--sam", type=Path, required=True, help="sam.safetensors of train_sam, sam.json beside it")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {NAME}.safetensors and {NAME}.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=46)
    parser.add_argument("--threads", type=int, help="of PyTorch, all cores where not given")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    sam, config = read_sam(f"custom:{options.sam}")
    sam.image_encoder.to(memory_format=torch.channels_last)
    sources = []
    for whole in (False, True):
        scenes = load_scenes(options.scenes, config.image_size, whole=whole)
        sources.append(batches(scenes, 1, PROMPTS, config.image_size, options.seed + whole))
    source = alternate(*sources)
    start_untrained(sam, most_chosen(sam, next(source)))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{NAME}.json").write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
    turns = episodes(source, lambda batch: embed(sam, batch), np.random.default_rng(options.seed), LIVE)

    def save() -> None:
        save_half(sam, options.out / f"{NAME}.safetensors")

    train("clicks", ClickStage(sam), turns, PEAK, options.minutes, save, [sam.image_encoder], 1.0)


if __name__ == "__main__":
    main()
