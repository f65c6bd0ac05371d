"""Trains the demo segmenter: a narrow DeepLabV3+ on MobileNetV2, with the SOSS document's recipe.

From the document: the scale of a 512 x 512 input, batches of 8, flips, colour jitter, copy-paste of 10% of the objects,
weight decay 1e-4, cosine annealing with warm restarts. Not from the document: random initial weights (it starts from
COCO's), so AdamW in place of SGD at 1e-2, which from random weights was no better than chance after 450 steps;
256-pixel windows; and two short periods.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from maskrt.export.deeplab import build_deeplabv3plus
from maskrt.export.demo.scenes_data import OUTSIDE, TrainingScene, copy_paste, jitter, load_scenes, random_view

LONGEST_SIDE, WINDOW = 512, 256  # the scale of the deployed input; windows of it, as whole ones take 2.6 s a step
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the bundle will declare
IGNORE = 255
PEAK, FLOOR = 3e-3, 1e-5  # learning rates; a restart goes back to PEAK


def batches(scenes: Sequence[TrainingScene], count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images float32 [B, 3, 256, 256] and labels int64 [B, 256, 256], IGNORE beyond the picture; without end."""
    with ThreadPoolExecutor(1) as pool:
        step = 0
        ahead = pool.submit(draw_batch, scenes, count, (seed, step))
        while True:
            step += 1
            current, ahead = ahead, pool.submit(draw_batch, scenes, count, (seed, step))
            yield current.result()


def draw_batch(scenes: Sequence[TrainingScene], count: int, seed: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """One batch of augmented scenes."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for index in rng.integers(0, len(scenes), size=count):
        view = random_view(scenes[index], WINDOW, rng)
        if rng.random() < 0.5:
            view = copy_paste(view, random_view(scenes[rng.integers(0, len(scenes))], WINDOW, rng), rng)
        # Black beyond the picture, then normalised: exactly what the runtime feeds.
        images.append(((jitter(view.rgb, rng) / 255 - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1))
        labels.append(np.where(view.instances == OUTSIDE, IGNORE, view.truth))
    return torch.from_numpy(np.stack(images).astype(np.float32)), torch.from_numpy(np.stack(labels)).long()


class Float32Conv(nn.Conv2d):
    """A convolution that autocast leaves alone."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def protect_dilated(model: nn.Module) -> None:
    """Keep dilated convolutions in float32 during training; the state dict stays the same.

    PyTorch 2.13 on CPUs returns a wrong weight gradient for dilated depthwise convolutions in bfloat16 (relative error
    0.99, measured), and NaN for a dilated dense one.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and max(module.dilation) > 1:
            module.__class__ = Float32Conv


def main() -> None:
    """Train and write segmenter.safetensors."""
    parser = argparse.ArgumentParser(description="Train the demo segmenter on scenes written by `maskrt scenes`.")
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for segmenter.safetensors")
    parser.add_argument("--steps", type=int, default=9000, help="upper limit")
    parser.add_argument("--minutes", type=float, default=11, help="length of the run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = build_deeplabv3plus("mobilenet_v2", 2, decoder_channels=64, width_mult=0.35)
    scenes = load_scenes(options.scenes, LONGEST_SIDE)
    options.out.mkdir(parents=True, exist_ok=True)
    fit(model, batches(scenes, 8, options.seed), options.steps, options.minutes)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, options.out / "segmenter.safetensors")


def fit(model: nn.Module, source: Iterator[tuple[Tensor, Tensor]], steps: int, minutes: float) -> None:
    """AdamW with two cosine periods over `steps` or `minutes`, whichever comes first."""
    model.train().to(memory_format=torch.channels_last)
    protect_dilated(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=1e-4)
    start = time.monotonic()
    recent: list[float] = []
    step = 0
    while (progress := max(step / steps, (time.monotonic() - start) / (60 * minutes))) < 1:
        for group in optimiser.param_groups:
            group["lr"] = FLOOR + (PEAK - FLOOR) * 0.5 * (1 + np.cos(np.pi * (2 * progress % 1)))
        images, labels = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        recent.append(loss.item())
        if step % 25 == 0:
            pace = (time.monotonic() - start) / step
            print(f"segmenter {step}/{steps} loss {np.mean(recent[-25:]):.4f} {pace:.2f} s/step", flush=True)


if __name__ == "__main__":
    main()
