"""Train the demo SAM: segment_anything's prompt encoder and mask decoder behind a narrow ResNet.

The ResNet starts from a DeepLabV3+ that train_segmenter has trained: it knows the kinds of things, and learnt them in a
fraction of the time that prompts would have taken. Two stages follow, both on whole pictures at the deployed size. In
the first, with the ResNet as it is, the embedding and the decoder's upscaling learn at every pixel the kind of its
object, that object's box, and the other pixels that belong to it: dense supervision, for the price of one matrix
product. In the second, everything is trained as SAM is, with point prompts, three masks and the IoU head, and the dense
supervision continues; the ResNet joins after a while. Arithmetic is in bfloat16, weights are in float32.

The seed determines data and initial weights. The clock ends the stages, so weights differ from run to run.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from maskrt.export.architectures.sam import build_sam
from maskrt.export.demo.model import DEMO_SAM, initialise, save_half
from maskrt.export.demo.prompts import Batch, batches
from maskrt.export.demo.scenes_data import IGNORE, SceneViews, kinds_of, load_scenes
from maskrt.export.demo.train_segmenter import protect_dilated

PICTURES, PROMPTS = 4, 14  # of a step of the second stage


def mask_loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss [P, K] of logits [P, K, h, w] against the coverage target [P, h, w], and the IoU of each mask.

    It is 2 x cross-entropy + dice. SAM's 20 x focal + dice left logits so flat that no mask passed the stability gate.
    """
    target = target[:, None].expand_as(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    pixels = 2 * cross_entropy.mean((-2, -1))
    overlap = (probability * target).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (probability.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    with torch.no_grad():
        hard, truth = logits > 0, target > 0.5
        iou = (hard & truth).sum((-2, -1)) / (hard | truth).sum((-2, -1)).clamp(min=1)
    return pixels + dice, iou


class Agreement(nn.Module):
    """Dense supervision: a pixel should agree with the other pixels of its object. The head serves training only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, channels))
        self.offset = nn.Parameter(torch.tensor(-1.0))

    def forward(self, pixels: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return loss [P, 1] and IoU [P, 1] of each prompted object's pixels, from upscaled embeddings [B, C, h, w]."""
        flat = pixels.float().flatten(2)  # [B, C, h * w]
        cells = batch["cells"][:, None].expand(-1, flat.shape[1], -1)
        picked = flat.gather(2, cells).transpose(1, 2)  # [B, P, C]
        logits = (self.query(picked) @ flat).reshape(-1, 1, *pixels.shape[-2:]) + self.offset
        return mask_loss(logits, batch["targets"])


class PixelStage(nn.Module):
    """Dense supervision: a pixel should know its object's kind and box, and agree with the object's other pixels.

    The heads serve training only.
    """

    def __init__(self, sam: Any, channels: int, kinds: int) -> None:
        super().__init__()
        self.sam = sam
        self.kinds = kinds
        self.agreement = Agreement(channels)
        self.describe = nn.Sequential(nn.Conv2d(channels, 64, 1), nn.ReLU(), nn.Conv2d(64, kinds + 4, 1))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.judge(encode(self.sam, batch), batch)

    def judge(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss, and the IoU of each prompted object's pixels, from image embeddings [B, C, h, w]."""
        pixels = upscale(self.sam, embeddings)
        with torch.autocast("cpu", torch.bfloat16):
            kinds, boxes = self.describe(pixels).float().split((self.kinds, 4), 1)
        losses, iou = self.agreement(pixels, batch)
        inside = (batch["kinds"] != IGNORE)[:, None]
        box_loss = ((boxes - batch["boxes"]).abs() * inside).sum() / inside.sum()
        return losses.mean() + F.cross_entropy(kinds, batch["kinds"], ignore_index=IGNORE) + 3 * box_loss, iou[:, 0]


class PromptStage(nn.Module):
    """SAM's training step with one point per object, with the dense supervision."""

    def __init__(self, sam: Any, pixel: PixelStage) -> None:
        super().__init__()
        self.sam = sam
        self.pixel = pixel
        self.decoder = MaskPredictor(sam.mask_decoder)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        sam, prompts = self.sam, len(batch["points"]) // len(batch["images"])
        embeddings = encode(sam, batch)
        tokens = sam.prompt_encoder._embed_points(batch["points"], batch["labels"], pad=True)
        dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(prompts, -1, *embeddings.shape[-2:])
        image_pe = sam.prompt_encoder.get_dense_pe()
        predict = self.decoder.in_bfloat16()
        masks, ious = [], []
        for index, embedding in enumerate(embeddings):
            own = tokens[index * prompts : (index + 1) * prompts]
            low_res, iou = predict(embedding[None], image_pe, own, dense)
            masks.append(low_res[:, 1:])  # the three masks for ambiguous prompts, not the single one
            ious.append(iou[:, 1:])
        losses, iou = mask_loss(torch.cat(masks), batch["targets"])
        iou_loss = F.mse_loss(torch.cat(ious), iou)
        # A small share for all three keeps every mask token learning.
        loss = losses.min(1).values.mean() + 0.05 * losses.mean() + 4 * iou_loss
        return loss + 0.5 * self.pixel.judge(embeddings, batch)[0], iou.max(1).values


def encode(sam: Any, batch: Batch) -> Tensor:
    """Return the image embeddings [B, C, h, w] of a batch, computed in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        embeddings: Tensor = sam.image_encoder(batch["images"].contiguous(memory_format=torch.channels_last))
        return embeddings


def upscale(sam: Any, embeddings: Tensor) -> Tensor:
    """Upscale embeddings as the decoder does, but unchanged by any prompt, in bfloat16: [B, C / 8, 4h, 4w]."""
    with torch.autocast("cpu", torch.bfloat16):
        upscaled: Tensor = sam.mask_decoder.output_upscaling(embeddings)
        return upscaled


class MaskPredictor(nn.Module):
    """The four masks and predicted IoUs of SAM's mask decoder, the single mask's first."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        predicted: tuple[Tensor, Tensor] = self.decoder.predict_masks(*inputs)
        return predicted

    def in_bfloat16(self) -> Callable[..., tuple[Tensor, Tensor]]:
        """Return a function from image embedding, its encoding, sparse and dense prompts to masks and IoUs in float32.

        The decoder runs wholly in bfloat16: autocast would spend a fifth of the step on conversions.
        """
        parameters = {name: value.bfloat16() for name, value in self.named_parameters()}

        def predict(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            masks, iou = functional_call(self, parameters, tuple(value.bfloat16() for value in inputs))
            return masks.float(), iou.float()

        return predict


def train(
    name: str,
    stage: nn.Module,
    source: Iterator[Any],
    peak: float,
    minutes: float,
    save: Callable[[], None],
    backbone: Sequence[nn.Module],
    joins: float,
) -> None:
    """Train a stage with AdamW, with a linear warm-up and a cosine to 1% over `minutes`.

    Args:
        source: the stage's inputs, step by step.
        save: called every 100 steps and at the end.
        backbone: parts of the stage that stay as they are, batch statistics included, until they join.
        joins: share of the minutes after which they join; 1 is never.
    """
    optimiser = torch.optim.AdamW(stage.parameters(), lr=peak, weight_decay=0.01)
    start = time.monotonic()
    seen: list[float] = []
    stage.train()
    for part in backbone:
        part.eval().requires_grad_(False)
    joined, step = False, 0
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        rate = peak * min(1, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        if not joined and progress >= joins:
            joined = True
            for part in backbone:
                part.train().requires_grad_(True)
        loss, iou = stage(next(source))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimiser.step()
        seen.append(float(iou.mean()))
        step += 1
        if step % 100 == 0:
            save()
        if step % 50 == 0:
            pace = (time.monotonic() - start) / step
            recent = float(np.mean(seen[-50:]))
            print(f"{name} {step} iou {recent:.3f} loss {loss.item():.3f} {pace:.2f} s/step", flush=True)
    save()


def main() -> None:
    """Train and write sam.safetensors with sam.json beside it."""
    parser = argparse.ArgumentParser(description="Train the demo SAM on scenes written by `maskrt scenes`.")
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True, help="segmenter.safetensors of train_segmenter")
    parser.add_argument("--out", type=Path, required=True, help="folder for sam.safetensors and sam.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, nargs=2, default=(8, 110), help="length of each stage")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    sam = initialise(build_sam(DEMO_SAM))
    print(f"{sum(p.numel() for p in sam.parameters()) / 1e6:.2f} M parameters", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        save_half(sam, options.out / "sam.safetensors")

    (options.out / "sam.json").write_bytes(msgspec.json.format(msgspec.json.encode(DEMO_SAM), indent=2) + b"\n")
    backbone = start_from(sam.image_encoder, options.backbone)
    sam.image_encoder.to(memory_format=torch.channels_last)
    size = DEMO_SAM.image_size
    scenes = load_scenes(options.scenes, size)
    views, kinds = SceneViews(scenes, size), kinds_of(scenes)
    pixel = PixelStage(sam, DEMO_SAM.prompt_dim // 8, len(kinds))
    pixel_minutes, prompt_minutes = options.minutes
    source = batches(views, kinds, PICTURES, 24, options.seed)
    train("pixel", pixel, source, 2e-3, pixel_minutes, save, backbone, 1.0)
    source = batches(views, kinds, PICTURES, PROMPTS, options.seed + 1)
    train("prompt", PromptStage(sam, pixel), source, 1e-3, prompt_minutes, save, backbone, 0.2)


def start_from(encoder: Any, segmenter: Path) -> list[nn.Module]:
    """Load the ResNet and the decoder of a trained DeepLabV3+ into the encoder, and return the two parts.

    Raises:
        RuntimeError: the file holds no DeepLabV3+ of that width.
    """
    state, parts = load_file(segmenter), {"encoder.": encoder.encoder, "decoder.": encoder.decoder}
    for prefix, part in parts.items():
        own = {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}
        part.load_state_dict(own)
    protect_dilated(encoder)
    return list(parts.values())


if __name__ == "__main__":
    main()
