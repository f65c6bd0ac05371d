"""Train the demo segmenter: DeepLabV3+ on a ResNet-50 of a quarter of the width, with the SOSS document's recipe.

From the document come pictures at the scale of a 512 x 512 input, flips, colour jitter, copy-paste of 10% of the
objects, weight decay 1e-4, and cosine annealing with warm restarts. The rest differs from it. Initial weights are
random (the document starts from COCO's), so AdamW replaces SGD at 1e-2, which from random weights was no better than
chance after 450 steps. A second head names the kind of object at every cell, for training only, because two classes
teach features slowly. There are two short periods. The backbone is a narrow ResNet rather than MobileNetV2, whose
depthwise convolutions took 510 ms where this took 262 ms for a step on the same eight windows, on two cores.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.architectures.deeplab import DeepLabV3Plus, build_deeplabv3plus
from maskrt.export.demo.model import save_half
from maskrt.export.demo.scenes_data import (
    IGNORE,
    OUTSIDE,
    TrainingScene,
    copy_paste,
    jitter,
    kinds_of,
    load_scenes,
    random_view,
)

SIDE = 512  # of the deployed input, which holds the whole picture
BATCH = 4
KIND_STRIDE = 4  # pixels per cell of the decoder's features
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the bundle will declare
PEAK, FLOOR = 2e-3, 1e-5  # learning rates; a restart goes back to PEAK


Batch = tuple[Tensor, Tensor, Tensor]


def batches(scenes: Sequence[TrainingScene], kinds: Sequence[str], seed: int) -> Iterator[Batch]:
    """Yield batches without end. A thread draws the next one while the last one trains."""
    with ThreadPoolExecutor(1) as pool:
        step = 0
        ahead = pool.submit(draw_batch, scenes, kinds, (seed, step))
        while True:
            step += 1
            current, ahead = ahead, pool.submit(draw_batch, scenes, kinds, (seed, step))
            yield current.result()


def draw_batch(scenes: Sequence[TrainingScene], kinds: Sequence[str], seed: tuple[int, int]) -> Batch:
    """Draw augmented pictures.

    Returns:
        images float32 [B, 3, 512, 512]; labels int64 [B, 512, 512] and kinds int64 [B, 128, 128], IGNORE beyond the
        picture.
    """
    rng = np.random.default_rng(seed)
    images, labels, drawn = [], [], []
    for index in rng.integers(0, len(scenes), size=BATCH).tolist():
        view = random_view(scenes[index], SIDE, rng)
        if rng.random() < 0.5:
            view = copy_paste(view, random_view(scenes[int(rng.integers(0, len(scenes)))], SIDE, rng), rng)
        # Black beyond the picture, then normalised: exactly the runtime's input.
        images.append(
            ((jitter(view.rgb, rng) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)
        )
        labels.append(np.where(view.instances == OUTSIDE, IGNORE, view.truth))
        drawn.append(view.kinds(kinds, KIND_STRIDE))
    arrays = np.stack(images).astype(np.float32), np.stack(labels).astype(np.int64), np.stack(drawn)
    return torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1]), torch.from_numpy(arrays[2])


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
    parser.add_argument("--minutes", type=float, default=46, help="length of the run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = build_deeplabv3plus("resnet50", 2, decoder_channels=64, width_mult=0.25)
    scenes = load_scenes(options.scenes, SIDE)
    options.out.mkdir(parents=True, exist_ok=True)
    kinds = kinds_of(scenes)
    fit(model, len(kinds), batches(scenes, kinds, options.seed), options.minutes)
    save_half(model, options.out / "segmenter.safetensors")


def fit(model: DeepLabV3Plus, kinds: int, source: Iterator[Batch], minutes: float) -> None:
    """Train with AdamW, with two cosine periods over `minutes`."""
    # It gets the segmentation head's input, so that the features know every kind of object.
    head = model.segmentation_head[0]
    assert isinstance(head, nn.Conv2d)
    kind_head = nn.Conv2d(head.in_channels, kinds, 1)
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    protect_dilated(model)
    optimiser = torch.optim.AdamW([*model.parameters(), *kind_head.parameters()], lr=PEAK, weight_decay=1e-4)
    start = time.monotonic()
    recent: list[tuple[float, float]] = []
    step = 0
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        rate = FLOOR + (PEAK - FLOOR) * 0.5 * (1 + np.cos(np.pi * (2 * progress % 1)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        images, labels, drawn = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            features = model.decoder(*model.encoder(images.to(memory_format=torch.channels_last)))
            logits, named = model.segmentation_head(features), kind_head(features)
        loss = functional.cross_entropy(logits.float(), labels, ignore_index=IGNORE)
        kind_loss = functional.cross_entropy(named.float(), drawn, ignore_index=IGNORE)
        optimiser.zero_grad()
        (loss + kind_loss).backward()  # type: ignore[no-untyped-call]  # torch has not typed it
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        recent = [*recent[-49:], (loss.item(), kind_loss.item())]
        step += 1
        if step % 50 == 0:
            pace, means = (time.monotonic() - start) / step, np.mean(recent, axis=0)
            print(f"segmenter {step} loss {means[0]:.4f} kinds {means[1]:.4f} {pace:.2f} s/step", flush=True)


if __name__ == "__main__":
    main()
