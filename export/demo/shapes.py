"""Draw shapes to learn clicking on: round and square ones, blobs, strokes and branches in plain textures, overlapping.

A model that has seen only beds answers a click by the kinds of things that lie there. From these shapes it learns what
holds for any thing: it ends where something changes, and clicks say where that is.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from maskrt.export.demo.scenes_data import GROUND, Drawn, View

KINDS = [GROUND, "shape"]
FEWEST, MOST = 3, 14  # shapes of a picture
SIDES = (0.12, 0.75)  # of a shape, in sides of the picture
F32 = NDArray[np.float32]
STROKE = 60  # corners of a stroke
Rng = np.random.Generator


def draw_shapes(size: int, rng: Rng) -> View:
    """Draw a picture of size x size pixels. The ground has instance 0, shapes have 1 and up."""
    image = _surface((size, size), size, rng, _colours(rng))
    palette = [_colours(rng) for _ in range(3)]
    instances, objects = np.zeros((size, size), np.uint16), {0: Drawn(GROUND, False)}
    usual = np.exp(rng.uniform(*np.log(SIDES)))
    for identity in range(1, int(rng.integers(FEWEST, MOST + 1)) + 1):
        side = float(np.clip(usual * rng.lognormal(0, 0.4), *SIDES)) * size
        x, y, mask = _outline(size, side, rng)
        if not mask.any():
            continue
        window = slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])
        part = image[window]
        # All share a few palettes, so that shapes look alike, also those that touch.
        skin = _surface(mask.shape, size, rng, palette[rng.integers(len(palette))] + rng.normal(0, 12, (2, 3)))
        if rng.random() < 0.4:
            skin *= _shade(mask, size, rng)
        if rng.random() < 0.4:
            part *= 1 - 0.4 * cv2.GaussianBlur(mask, (0, 0), 0.012 * size)[..., None]
        part += cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1.2))[..., None] * (skin - part)
        instances[window][mask > 0.5] = identity
        objects[identity] = Drawn("shape", False)
    return View(_expose(image, rng), instances, objects)


def _colours(rng: Rng) -> NDArray[np.float64]:
    """Choose two colours, [2, 3], from grey to gaudy."""
    return rng.uniform(30, 225, (2, 1)) + rng.uniform(0, 1) * rng.uniform(-90, 90, (2, 3))


def _outline(size: int, side: float, rng: Rng) -> tuple[int, int, F32]:
    """Draw a filled shape of about that side somewhere on the picture: left, top, and float32 [h, w], 0 or 1."""
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    kind = rng.integers(5)
    if kind == 0:  # round
        points = np.stack([np.cos(angle), rng.uniform(0.4, 1) * np.sin(angle)], 1)
    elif kind == 1:  # square, or another number of straight sides
        turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        points = np.stack([np.cos(turns), np.sin(turns)], 1) * rng.uniform(0.5, 1, (len(turns), 1))
    elif kind == 2:  # a blob, smooth or with bays
        waves = range(2, int(rng.integers(5, 12)))
        radius = 1 + sum(rng.normal(0, 0.14) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi)) for wave in waves)
        points = np.stack([np.cos(angle), np.sin(angle)], 1) * np.clip(radius, 0.3, None)[:, None]
    elif kind == 3:  # a stroke
        points = _stroke(rng, rng.uniform(0.12, 0.3))
        points = points - points.mean(0)
    else:  # some strokes that leave the same place
        strokes = [_stroke(rng, rng.uniform(0.08, 0.2)) for _ in range(int(rng.integers(2, 6)))]
        points = np.concatenate([(stroke - stroke[[0, -1]].mean(0)) / 2 for stroke in strokes])
    turn = rng.uniform(0, 2 * np.pi)
    turned = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = np.round(turned * side / 2 + rng.uniform(0, size, 2)).astype(np.int32)
    margin = size // 32  # for the blur around it
    low, high = (corners.min(0) - margin).clip(0, size - 1), (corners.max(0) + margin).clip(1, size)
    mask = np.zeros((high - low)[::-1], np.float32)
    # Drawn one after the other, strokes that cross do not cut holes into each other.
    for part in np.split(corners - low, len(corners) // (STROKE if kind == 4 else len(corners))):
        cv2.fillPoly(mask, [part], 1.0)
    return int(low[0]), int(low[1]), mask


def _stroke(rng: Rng, width: float) -> NDArray[np.float64]:
    """Return the outline of a bent line, [STROKE, 2], 3 long and twice `width` wide."""
    steps = rng.normal(0, 0.25, STROKE // 2).cumsum() + rng.uniform(0, 2 * np.pi)
    middle = np.stack([np.cos(steps), np.sin(steps)], 1).cumsum(0) / 10
    across = np.stack([-np.sin(steps), np.cos(steps)], 1) * width
    return np.concatenate([middle + across, (middle - across)[::-1]])


def _surface(shape_hw: tuple[int, int], size: int, rng: Rng, colours: NDArray[np.float64]) -> F32:
    """Draw a plain, clouded, banded or chequered surface in two colours, float32 [h, w, 3]; size: picture's side."""
    y, x = np.mgrid[: shape_hw[0], : shape_hw[1]].astype(np.float32) / np.float32(size)
    turn = rng.uniform(0, np.pi)
    along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    cell = size / np.exp(rng.uniform(np.log(3), np.log(60)))  # pixels
    pattern = rng.integers(4)
    if pattern == 0:
        field = 2 * along
    elif pattern == 1:
        field = _clouds(shape_hw, cell, rng)
    elif pattern == 2:
        field = np.sin(np.pi * along * size / cell + 2 * _clouds(shape_hw, size / 4, rng))
    else:
        field = np.sign(np.sin(np.pi * along * size / cell) * np.sin(np.pi * across * size / cell))
    field = 0.5 + 0.5 * rng.uniform(0.1, 1) * field + 0.3 * rng.uniform(0, 1) * _clouds(shape_hw, size / 40, rng)
    low, high = colours.astype(np.float32)
    return np.asarray(low + np.clip(field, 0, 1)[..., None].astype(np.float32) * (high - low), np.float32)


def _clouds(shape_hw: tuple[int, int], cell: float, rng: Rng) -> F32:
    """Return smooth noise of about -1 to 1, float32 [h, w], that changes within `cell` pixels."""
    h, w = (int(np.ceil(length / cell)) + 1 for length in shape_hw)
    low = rng.uniform(-1, 1, (h, w)).astype(np.float32)
    return np.asarray(cv2.resize(low, shape_hw[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _shade(mask: F32, size: int, rng: Rng) -> F32:
    """Return the light from one side on something round, float32 [h, w, 1]."""
    soft = cv2.GaussianBlur(mask, (0, 0), 0.03 * size)
    light, slope = rng.uniform(0, 2 * np.pi), np.stack(np.gradient(soft), -1) * np.float32(0.06 * size)
    return np.asarray(1 + slope @ np.array([np.cos(light), np.sin(light)], np.float32), np.float32)[..., None]


def _expose(image: F32, rng: Rng) -> NDArray[np.uint8]:
    """Add uneven light, blur and noise."""
    size = len(image)
    lit = image * (1 + 0.25 * _clouds((size, size), size / 3, rng))[..., None]
    lit = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.3, 0.9))
    lit += rng.standard_normal((size, size, 1), np.float32) * np.float32(rng.uniform(1, 7))
    lit += rng.standard_normal((size, size, 3), np.float32) * np.float32(2)
    return np.asarray(np.clip(np.round(lit), 0, 255), np.uint8)
