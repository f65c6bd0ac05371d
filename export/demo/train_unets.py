"""Train the demo's three U-Nets: `low` and `high` of the two-stage pipeline, and `baseline` for whole pictures.

From the document come the loss, focal (gamma 2, alpha 0.25) + 1 - Dice; Adam; flips, brightness and contrast by up to
0.1 and rotation, each half of the time; `low` on crops of 1/8 of the size, `high` on crops of a patch's size,
`baseline` on whole pictures. The rest differs from it:

- `low`'s pictures are of 1/8 to 1/8 + 1/20 of the size. The document has only the latter, at which objects are larger
  than in use.
- Rotation is by quarter turns, which need no resampling.
- Initial weights are He's, and the rate is 1e-3 with a warm-up and one cosine period in place of 1e-4, since the runs
  are short. The width is 12.
- One `high` serves all patch sizes; the document trains one for each.
- `high` gets, of several crops, the one whose truth is most divided, because stage 1 is least certain of such patches.
- `baseline` continues from the weights of `high`: from random weights it had learnt little by the time `high` was good.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.architectures.networks import load_into
from maskrt.export.architectures.unet import MULTIPLE, UNet
from maskrt.export.demo.model import save_half
from maskrt.export.demo.scenes_data import TrainingScene, load_scenes
from maskrt.export.demo.train_segmenter import MEAN, STD
from maskrt.kernels.arrays import Bytes, Mask

SIZE = 1024  # longest side of the working picture
SHRINK = 8
LOW_SIDES = tuple(SIZE // SHRINK + step * SIZE // 60 for step in range(4))  # longest sides of the pictures of `low`
WIDTH = 12
GAMMA, ALPHA = 2.0, 0.25
PEAK, FLOOR = 1e-3, 1e-6
PATCHES = (256, 128, 64)  # sides that `high` learns on: of 4, 8 and 16 patches along the longest side
PIXELS = {"low": 32 * (SIZE // SHRINK) ** 2, "high": 8 * 256**2, "baseline": 2 * SIZE**2}  # of a batch
CANDIDATES = 4  # crops for `high` to choose from

Batch = tuple[Tensor, Tensor]


class Sample(NamedTuple):
    """A picture with its truth: rgb uint8 [H, W, 3] with the longest side SIZE, truth bool [H, W]."""

    rgb: Bytes
    truth: Mask


def pictures_of(scenes: Sequence[TrainingScene], network: str) -> list[Sample]:
    """Return each scene with its occlusions as the truth, at the sizes that a network's crops are taken from."""
    found = []
    for scene in scenes:
        occlusions = [identity for identity, drawn in scene.objects.items() if drawn.occlusion]
        picture = Sample(scene.rgb, np.isin(scene.instances, occlusions))
        found += [scaled(picture, side) for side in LOW_SIDES] if network == "low" else [picture]
    return found


def draw_low(pictures: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
    """Draw random crops of 1/8 of the size out of pictures of that size or a little larger."""
    side = SIZE // SHRINK
    return [crop(choose(pictures, rng), side, rng) for _ in range(PIXELS["low"] // side**2)]


def draw_high(pictures: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
    """Draw crops of one patch size, each the most divided of several."""
    side = int(rng.choice(PATCHES))

    def divided(part: Sample) -> float:
        return -abs(float(part.truth.mean()) - 0.5)

    found = []
    for _ in range(PIXELS["high"] // side**2):
        picture = choose(pictures, rng)
        found.append(max((crop(picture, side, rng) for _ in range(CANDIDATES)), key=divided))
    return found


def draw_baseline(pictures: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
    """Draw whole pictures, on the smallest frame that holds them."""
    chosen = [choose(pictures, rng) for _ in range(PIXELS["baseline"] // SIZE**2)]
    height, width = (
        -(-max(sides) // MULTIPLE) * MULTIPLE for sides in zip(*(p.truth.shape for p in chosen), strict=True)
    )
    return [padded(picture, (height, width)) for picture in chosen]


DRAW: dict[str, Callable[[Sequence[Sample], np.random.Generator], list[Sample]]] = {
    "low": draw_low,
    "high": draw_high,
    "baseline": draw_baseline,
}


def choose(pictures: Sequence[Sample], rng: np.random.Generator) -> Sample:
    """Choose one of the pictures, any way round."""
    rgb, truth = pictures[int(rng.integers(len(pictures)))]
    if rng.random() < 0.5:
        rgb, truth = rgb[:, ::-1], truth[:, ::-1]
    if rng.random() < 0.5:
        turns = int(rng.integers(1, 4))
        rgb, truth = np.rot90(rgb, turns), np.rot90(truth, turns)
    return Sample(rgb, truth)


def scaled(picture: Sample, longest_side: int) -> Sample:
    """Scale the picture to another longest side, as the runtime does."""
    height, width = picture.truth.shape
    scale = longest_side / max(height, width)
    size = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))

    def resized(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(size, Image.Resampling.BILINEAR))

    return Sample(resized(picture.rgb), resized(picture.truth.astype(np.uint8) * 255) > 127)


def crop(picture: Sample, side: int, rng: np.random.Generator) -> Sample:
    """Cut a square of a picture, black where the picture ends."""
    height, width = picture.truth.shape
    top, left = (int(rng.integers(0, max(0, full - side) + 1)) for full in (height, width))
    part = slice(top, top + side), slice(left, left + side)
    return padded(Sample(picture.rgb[part], picture.truth[part]), (side, side))


def padded(picture: Sample, size_hw: tuple[int, int]) -> Sample:
    """Pad with black on the right and below."""
    missing = [(0, want - have) for want, have in zip(size_hw, picture.truth.shape, strict=True)]
    return Sample(np.pad(picture.rgb, [*missing, (0, 0)]), np.pad(picture.truth, missing))


def batch_of(pictures: Sequence[Sample], rng: np.random.Generator) -> Batch:
    """Return images float32 [B, 3, h, w], normalised as in the runtime, and truth float32 [B, 1, h, w]."""
    images, truths = [], []
    for rgb, truth in pictures:
        values = rgb.astype(np.float32) / 255
        if rng.random() < 0.5:
            contrast, brightness = rng.uniform(-0.1, 0.1, 2).astype(np.float32)
            values = np.clip(values * (1 + contrast) + brightness, 0, 1)
        images.append(((values - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1))
        truths.append(truth[None].astype(np.float32))
    return torch.from_numpy(np.stack(images).astype(np.float32)), torch.from_numpy(np.stack(truths))


def batches(network: str, pictures: Sequence[Sample], seed: int) -> Iterator[Batch]:
    """Yield batches without end. A thread draws the next one while the last one trains."""

    def draw(step: int) -> Batch:
        rng = np.random.default_rng((seed, step))
        return batch_of(DRAW[network](pictures, rng), rng)

    with ThreadPoolExecutor(1) as pool:
        step = 0
        ahead = pool.submit(draw, step)
        while True:
            step += 1
            current, ahead = ahead, pool.submit(draw, step)
            yield current.result()


def loss_of(logits: Tensor, truth: Tensor) -> Tensor:
    """Return focal loss + 1 - Dice of the batch."""
    probability = logits.sigmoid()
    right = probability * truth + (1 - probability) * (1 - truth)
    weight = ALPHA * truth + (1 - ALPHA) * (1 - truth)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    focal = (weight * (1 - right) ** GAMMA * entropy).mean()
    return focal + 1 - dice_of(probability, truth)


def dice_of(probability: Tensor, truth: Tensor) -> Tensor:
    """Return the Dice pooled over a batch; it is soft, so that it has a gradient."""
    return (2 * (probability * truth).sum() + 1) / ((probability + truth).sum() + 1)


def initialise(model: UNet) -> None:
    """Set He's normal weights, for networks of ReLUs without normalisation."""
    for layer in (*model.conv, *model.deconv):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        if isinstance(layer, nn.ConvTranspose2d):
            # Its weight is [in, out, 3, 3], so PyTorch counts `out` as the fan in; and a pixel sums 9 / 4 taps.
            with torch.no_grad():
                layer.weight *= (layer.out_channels / layer.in_channels) ** 0.5 * 2
        nn.init.zeros_(layer.bias)


def fit(model: UNet, network: str, source: Iterator[Batch], minutes: float, peak: float = PEAK) -> None:
    """Train with Adam over `minutes`."""
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    optimiser = torch.optim.Adam(model.parameters(), lr=PEAK)
    start, step = time.monotonic(), 0
    recent: list[tuple[float, float]] = []
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        rate = min(progress / 0.02, 0.5 * (1 + np.cos(np.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = FLOOR + (peak - FLOOR) * rate
        images, truth = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images.to(memory_format=torch.channels_last)).float()
        loss = loss_of(logits, truth)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has not typed it
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        recent = [*recent[-99:], (loss.item(), float(dice_of((logits > 0).float(), truth)))]
        if step % 50 == 0:
            pace, (mean, dice) = (time.monotonic() - start) / step, np.mean(recent, axis=0)
            print(f"{network} {step} loss {mean:.4f} Dice {dice:.4f} {pace:.2f} s/step", flush=True)


def main() -> None:
    """Train one of the three and write unet_NETWORK.safetensors."""
    parser = argparse.ArgumentParser(description="Train a demo U-Net on scenes written by `maskrt scenes`.")
    parser.add_argument("network", choices=DRAW)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for unet_NETWORK.safetensors")
    parser.add_argument("--minutes", type=float, default=40, help="length of the run")
    parser.add_argument("--start", type=Path, help="weights to go on from, in place of random ones")
    parser.add_argument("--peak", type=float, default=PEAK, help="learning rate after the warm-up")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = UNet(channels=3, width=WIDTH)
    if options.start is None:
        initialise(model)
    else:
        load_into(model, options.start)
    pictures = pictures_of(load_scenes(options.scenes, SIZE), options.network)
    options.out.mkdir(parents=True, exist_ok=True)
    fit(model, options.network, batches(options.network, pictures, options.seed), options.minutes, options.peak)
    save_half(model, options.out / f"unet_{options.network}.safetensors")


if __name__ == "__main__":
    main()
