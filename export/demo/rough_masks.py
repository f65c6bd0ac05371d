"""Draw pairs of a rough mask and its truth to train a refiner on: from scenes, and from random shapes.

Rough masks have the faults of a segmenter's: outlines that wander, surplus or missing parts, and the steps of a coarse
grid that was scaled up.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn import functional

from maskrt.export.demo.scenes_data import TrainingScene
from maskrt.kernels.arrays import Bytes, Mask

SHARE_SHAPES = 0.2
ZOOM = (1.2, 4.0)  # of scenes with 512 pixels on the longer side: an object's size in 2K and 4K pictures


def draw_pair(
    scenes: Sequence[TrainingScene], side: int, shrunk: float, rng: np.random.Generator
) -> tuple[Bytes, Mask]:
    """Draw a picture uint8 [S, S, 3] and the truth bool [S, S] of something in it; shrunk: see crop_scene."""
    if rng.random() < SHARE_SHAPES:
        return draw_shape(side, rng)
    return crop_scene(scenes[int(rng.integers(0, len(scenes)))], side, shrunk, rng)


def crop_scene(scene: TrainingScene, side: int, shrunk: float, rng: np.random.Generator) -> tuple[Bytes, Mask]:
    """Cut a window around the outline of one object, of some, or of all occlusions; scale, flip and transpose it.

    shrunk: how many times smaller than the picture that it stands for.
    """
    identities = np.array(list(scene.objects))
    occlusions = np.array([i for i, drawn in scene.objects.items() if drawn.occlusion])
    choice = rng.random()
    if choice < 0.7 and occlusions.size:
        chosen = occlusions
    else:
        chosen = rng.choice(identities, 1 if choice < 0.85 else min(3, identities.size), replace=False)
    mask = np.isin(scene.instances, chosen)
    height, width = mask.shape
    zoom = np.exp(rng.uniform(*np.log(ZOOM))) / shrunk
    window = min(side / zoom, height, width)
    edges = np.argwhere(mask[1:, 1:] != mask[:-1, :-1])
    centre = edges[rng.integers(len(edges))] if len(edges) else rng.integers(0, (height, width))
    corner = np.clip(centre - window * rng.uniform(0.15, 0.85, 2), 0, (height - window, width - window))
    box = (corner[1], corner[0], corner[1] + window, corner[0] + window)

    def scaled(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR, box))

    rgb, truth = scaled(scene.rgb), scaled(mask.astype(np.uint8) * 255) > 127
    if rng.random() < 0.5:
        rgb, truth = rgb[:, ::-1], truth[:, ::-1]
    if rng.random() < 0.5:
        rgb, truth = rgb.swapaxes(0, 1), truth.T
    return rgb, truth


def draw_shape(side: int, rng: np.random.Generator) -> tuple[Bytes, Mask]:
    """Draw a textured figure, a blob, a polygon or strokes, on a textured ground."""
    scale = 2  # drawn larger, so that its edge is smooth
    canvas = Image.new("L", (side * scale, side * scale))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 4)):
        centre, radius = rng.uniform(0.2, 0.8, 2) * side * scale, rng.uniform(0.08, 0.4) * side * scale
        count = int(rng.integers(3, 40))
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        radii = radius * rng.uniform(rng.uniform(0.3, 1), 1, count)
        points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        outline = [tuple(point) for point in points]
        if rng.random() < 0.4:
            draw.line(outline, fill=255, width=int(rng.integers(3, 26)), joint="curve")
        else:
            draw.polygon(outline, fill=255)
        if rng.random() < 0.3:
            hole = radius * rng.uniform(0.1, 0.4)
            draw.ellipse([*(centre - hole), *(centre + hole)], fill=0)
    cover = np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float32)[..., None] / 255
    ground, figure = _texture(side, rng), _texture(side, rng)
    rgb = ground + (figure - ground) * cover
    return np.clip(rgb + rng.normal(0, rng.uniform(0, 6), rgb.shape), 0, 255).astype(np.uint8), cover[..., 0] > 0.5


def _texture(side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a colour with noise of a few sizes, sometimes with stripes, float32 [S, S, 3]."""
    base = np.ones((side, side, 3), np.float32) * rng.uniform(20, 235, 3).astype(np.float32)
    for cells in rng.choice([2, 5, 12, 30], 2, replace=False):
        noise = rng.normal(0, rng.uniform(2, 24), (cells, cells, 1)) + rng.normal(0, 5, (cells, cells, 3))
        base += _resized(noise.transpose(2, 0, 1), side).transpose(1, 2, 0)
    if rng.random() < 0.3:
        rows, columns = np.mgrid[:side, :side]
        angle, period = rng.uniform(0, np.pi), rng.uniform(5, 40)
        wave = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) * 2 * np.pi / period)
        base += wave.astype(np.float32)[..., None] * rng.uniform(-25, 25, 3).astype(np.float32)
    return base


def roughen(truth: Mask, reach: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a mask that a segmenter, or the cascade stage before, might give: float32 [S, S] in [0, 1].

    Args:
        reach: pixels by which its outline may be off, more or less.
    """
    side = len(truth)
    mask = torch.from_numpy(truth.astype(np.float32))[None, None]
    target = 1 - rng.uniform(0, min(0.25, 0.06 + 0.02 * reach))
    for _ in range(40):
        if _iou(mask[0, 0].numpy() > 0.5, truth) < target:
            break
        top, left = rng.integers(0, side - 8, 2)
        part = (..., slice(top, top + rng.integers(8, side)), slice(left, left + rng.integers(8, side)))
        window = 2 * int(rng.integers(1, max(2, round(reach / 2) + 1))) + 1
        sign = 1 if rng.random() < 0.5 else -1  # grow, or shrink
        mask[part] = sign * functional.max_pool2d(sign * mask[part], window, 1, window // 2)
        if rng.random() < 0.1:
            row, column, size = *rng.integers(0, side, 2), rng.integers(2, max(3, round(reach)) + 1)
            mask[..., row : row + size, column : column + size] = float(rng.random() < 0.5)
    if rng.random() < 0.8:
        cells = int(np.clip(side / (reach * rng.uniform(0.5, 2)), 4, side))
        mask = functional.interpolate(mask, (cells, cells), mode="area")
        mask = functional.interpolate(mask, (side, side), mode="bilinear", align_corners=False)
    if rng.random() < 0.6:
        mask = (mask > 0.5).float()
    return mask[0, 0].numpy()


def _iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() + 1) / float((a | b).sum() + 1)


def _resized(planes: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    values = torch.from_numpy(planes.astype(np.float32))[None]
    resized: NDArray[np.float32] = functional.interpolate(values, (side, side), mode="bicubic")[0].numpy()
    return resized
