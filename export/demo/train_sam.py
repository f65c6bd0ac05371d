"""Trains the demo SAM: segment_anything's prompt encoder and mask decoder behind our convolutional encoder.

Three stages. First the encoder and the decoder's upscaling learn one embedding per pixel that tells objects and their
kinds apart: every step judges every pixel, for the price of one matrix product. Then everything is trained
as SAM is, with point prompts, three masks and the IoU head, on windows that stand at a random place of the full frame
of prompt coordinates: what is learnt holds at full size for a fraction of the arithmetic. The last steps see whole
pictures. Arithmetic in bfloat16, weights in float32.

Reproducible for a fixed seed and number of threads, but for the order of floating-point sums.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from maskrt.export.demo.model import DEMO_SAM, initialise
from maskrt.export.demo.prompts import Batch, batches
from maskrt.export.demo.scenes_data import kinds_of, load_scenes
from maskrt.export.sam import build_sam

Loss = Callable[[Batch], tuple[Tensor, Tensor]]


def mask_loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """20 x focal + dice, [P, K] for logits [P, K, h, w] and coverage target [P, h, w]; and the IoU of each mask."""
    target = target[:, None].expand_as(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    focal = ((probability - target).square() * cross_entropy).mean((-2, -1))
    overlap = (probability * target).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (probability.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    with torch.no_grad():
        hard, truth = logits > 0, target > 0.5
        iou = (hard & truth).sum((-2, -1)) / (hard | truth).sum((-2, -1)).clamp(min=1)
    return 20 * focal + dice, iou


class PixelStage(nn.Module):
    """Dense supervision: pixels of one object should agree with each other, and know what kind of object they are.

    Both heads serve training only. Naming kinds is what teaches the encoder fastest: every pixel has a label.
    """

    def __init__(self, sam: nn.Module, channels: int, kinds: int) -> None:
        super().__init__()
        self.sam = sam
        self.query = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, channels))
        self.offset = nn.Parameter(torch.tensor(-1.0))
        self.kind = nn.Sequential(nn.Conv2d(channels, 64, 1), nn.ReLU(), nn.Conv2d(64, kinds, 1))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.judge(encode(self.sam, batch), batch)

    def judge(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss, and the IoU of each prompted object's pixels, from image embeddings [B, C, h, w]."""
        with torch.autocast("cpu", torch.bfloat16):
            pixels = self.sam.mask_decoder.output_upscaling(embeddings)
            kinds = self.kind(pixels).float()
        pixels = pixels.float()
        flat = pixels.flatten(2)  # [B, C, h * w]
        cells = batch["cells"][:, None].expand(-1, flat.shape[1], -1)
        picked = flat.gather(2, cells).transpose(1, 2)  # [B, P, C]
        logits = (self.query(picked) @ flat).reshape(-1, 1, *pixels.shape[-2:]) + self.offset
        losses, iou = mask_loss(logits, batch["targets"])
        return losses.mean() + F.cross_entropy(kinds, batch["kinds"]), iou[:, 0]


class PromptStage(nn.Module):
    """SAM's training step with one point per object; with `pixel`, the dense supervision goes on beside it."""

    def __init__(self, sam: nn.Module, pixel: PixelStage | None = None) -> None:
        super().__init__()
        self.sam = sam
        self.pixel = pixel
        self.decoder = _MaskPredictor(sam.mask_decoder)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        sam, prompts = self.sam, len(batch["points"]) // len(batch["images"])
        embeddings = encode(sam, batch)
        tokens = sam.prompt_encoder._embed_points(batch["points"], batch["labels"], pad=True)
        dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(prompts, -1, *embeddings.shape[-2:])
        grid = sam.prompt_encoder.get_dense_pe()
        # The decoder runs wholly in bfloat16: autocast would spend a fifth of the step on conversions.
        parameters = {name: value.bfloat16() for name, value in self.decoder.named_parameters()}
        masks, ious = [], []
        for index, embedding in enumerate(embeddings):
            top, left = (batch["corners"][index] // DEMO_SAM.patch_size).tolist()
            bottom, right = top + embedding.shape[-2], left + embedding.shape[-1]
            inputs = {
                "image_embeddings": embedding[None],
                "image_pe": grid[:, :, top:bottom, left:right],
                "sparse_prompt_embeddings": tokens[index * prompts : (index + 1) * prompts],
                "dense_prompt_embeddings": dense,
            }
            inputs = {name: value.bfloat16() for name, value in inputs.items()}
            low_res, iou = functional_call(self.decoder, parameters, (), inputs)
            masks.append(low_res[:, 1:].float())  # the three masks for ambiguous prompts, not the single one
            ious.append(iou[:, 1:].float())
        losses, iou = mask_loss(torch.cat(masks), batch["targets"])
        # A small share for all three keeps every mask token learning.
        loss = losses.min(1).values.mean() + 0.05 * losses.mean() + F.mse_loss(torch.cat(ious), iou)
        if self.pixel is not None:
            loss = loss + 0.5 * self.pixel.judge(embeddings, batch)[0]
        return loss, iou.max(1).values


class FullStage(PromptStage):
    """The same on whole pictures, one per step, without dense supervision.

    Batch norm keeps the statistics it has: those of a single picture would not be those it runs with.
    """

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def encode(sam: nn.Module, batch: Batch) -> Tensor:
    """Image embeddings [B, C, h, w] of a batch, bfloat16 inside."""
    with torch.autocast("cpu", torch.bfloat16):
        return sam.image_encoder(batch["images"].contiguous(memory_format=torch.channels_last))


class _MaskPredictor(nn.Module):
    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.decoder.predict_masks(**inputs)


def train(
    name: str,
    stage: nn.Module,
    source: Iterator[Batch],
    steps: int,
    peak: float,
    minutes: float,
    save: Callable[[], None],
) -> None:
    """AdamW with linear warm-up and a cosine to 1% that ends at `steps` or `minutes`, whichever comes first.

    `save` is called every 500 steps and at the end.
    """
    optimiser = torch.optim.AdamW(stage.parameters(), lr=peak, weight_decay=0.01)
    start = time.monotonic()
    seen: list[float] = []
    stage.train()
    step = 0
    while True:
        progress = max(step / steps, (time.monotonic() - start) / (60 * minutes))
        if progress >= 1:
            save()
            return
        rate = peak * min(1, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, iou = stage(next(source))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimiser.step()
        seen.append(float(iou.mean()))
        step += 1
        if step % 500 == 0:
            save()
        if step % 50 == 0:
            pace = (time.monotonic() - start) / step
            recent = float(np.mean(seen[-50:]))
            print(f"{name} {step}/{steps} iou {recent:.3f} loss {loss.item():.3f} {pace:.2f} s/step", flush=True)


def main() -> None:
    """Train and write sam.safetensors with sam.json beside it."""
    parser = argparse.ArgumentParser(description="Train the demo SAM on scenes written by `maskrt scenes`.")
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for sam.safetensors and sam.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, nargs=3, default=(9, 27, 12), help="length of each stage")
    parser.add_argument("--steps", type=int, nargs=3, default=(9000, 9000, 9000), help="upper limit of each stage")
    parser.add_argument("--only-full", action="store_true", help="continue OUT/sam.safetensors with the last stage")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    sam = initialise(build_sam(DEMO_SAM))
    scenes = load_scenes(options.scenes, DEMO_SAM.image_size)
    print(f"{len(scenes)} scenes, {sum(p.numel() for p in sam.parameters()) / 1e6:.2f} M parameters", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        state = {key: value.contiguous() for key, value in sam.state_dict().items()}
        save_file(state, options.out / "sam.safetensors")

    (options.out / "sam.json").write_bytes(msgspec.json.format(msgspec.json.encode(DEMO_SAM), indent=2) + b"\n")
    sam.image_encoder.to(memory_format=torch.channels_last)
    pixel = PixelStage(sam, DEMO_SAM.prompt_dim // 8, len(kinds_of(scenes)))
    stages = [
        ("pixel", pixel, (6, 64, 384), 2e-3),
        ("prompt", PromptStage(sam, pixel), (4, 14, 384), 1e-3),
        ("full", FullStage(sam), (1, 16, 1024), 3e-4),
    ]
    if options.only_full:
        sam.load_state_dict(load_file(options.out / "sam.safetensors"))
    for index, (name, stage, (windows, prompts, size), peak) in enumerate(stages):
        if options.only_full and name != "full":
            continue
        source = batches(scenes, windows, prompts, size, options.seed + index)
        train(name, stage, source, options.steps[index], peak, options.minutes[index], save)


if __name__ == "__main__":
    main()
