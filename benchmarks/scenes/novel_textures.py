"""Surfaces for the novel pictures: smooth, grainy and striped fields of about -1 to 1.

Frequencies are counts over the shorter side, so that a surface looks the same at any size.
"""

from __future__ import annotations

import cv2
import numpy as np

from maskrt.benchmarks.scenes.canvas import F32
from maskrt.benchmarks.scenes.shapes import noise

Rng = np.random.Generator
SizeHw = tuple[int, int]


def fractal(rng: Rng, size_hw: SizeHw, across: float, octaves: int = 4, fall: float = 0.6) -> F32:
    """Return clouds, float32 [h, w]: `across` cells, then twice as many with `fall` of the strength, and so on."""
    total = np.zeros(size_hw, np.float32)
    weight, weights = 1.0, 0.0
    for octave in range(octaves):
        total += weight * noise(rng, size_hw, _cells(size_hw, across * 2**octave))
        weights += weight**2
        weight *= fall
    return total / np.float32(weights**0.5)


def pebbles(rng: Rng, size_hw: SizeHw, across: float) -> tuple[F32, F32]:
    """Return stones that touch: a random tone for each, and their height, 1 in the middle and -1 between them."""
    rows, cols = _cells(size_hw, across)
    height, width = size_hw
    y = (np.arange(rows)[:, None] + rng.uniform(0.05, 0.95, (rows, cols))) * (height / rows)
    x = (np.arange(cols)[None] + rng.uniform(0.05, 0.95, (rows, cols))) * (width / cols)
    seeds = np.ones(size_hw, np.uint8)
    seeds[y.astype(int).clip(0, height - 1), x.astype(int).clip(0, width - 1)] = 0
    far, stone = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tones = rng.uniform(-1, 1, int(stone.max()) + 1).astype(np.float32)
    # Half the spacing is where two stones meet at the earliest.
    high = 1 - 2 * np.clip(far * (1.3 * across / min(size_hw)), 0, 1) ** 2
    return tones[stone], np.asarray(high, np.float32)


def stripes(rng: Rng, size_hw: SizeHw, across: float, angle: float, sway: float) -> F32:
    """Return bands, float32 [h, w], across the direction `angle` in radians; they sway by `sway` of their widths."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32) / np.float32(min(size_hw))
    along = (np.cos(angle) * x + np.sin(angle) * y) * across
    return np.asarray(np.sin(2 * np.pi * (along + sway * fractal(rng, size_hw, 3, 3))), np.float32)


def grain(rng: Rng, size_hw: SizeHw, across: float, long: float) -> F32:
    """Return fibres from top to bottom, float32 [h, w]: clouds stretched `long` times."""
    rows, cols = _cells(size_hw, across)
    return noise(rng, size_hw, (max(round(rows / long), 2), cols))


def specks(rng: Rng, size_hw: SizeHw, across: float, share: float) -> F32:
    """Return sparse round specks, float32 [h, w], 0 to 1; about `share` of the surface."""
    field = noise(rng, size_hw, _cells(size_hw, across))
    edge = float(np.quantile(field, 1 - share))
    return np.asarray(np.clip((field - edge) / 0.15, 0, 1), np.float32)


def _cells(size_hw: SizeHw, across: float) -> tuple[int, int]:
    """Return rows and columns of square cells, `across` of them over the shorter side, but no more than pixels."""
    per_pixel = min(across / min(size_hw), 1.0)
    return max(round(size_hw[0] * per_pixel), 2), max(round(size_hw[1] * per_pixel), 2)
