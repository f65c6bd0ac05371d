"""Held-out scenes for refiners: a picture, its truth, and a mask as rough as a segmenter's."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.scenes.bedside import draw_scene

CELLS = 128  # on the longer side: a 512-pixel segmenter that answers at a quarter of its input


@dataclass(frozen=True)
class RefineScene:
    """rgb: uint8 [H, W, 3]; truth: bool [H, W]; rough: float32 [H, W], 0 or 1."""

    rgb: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    rough: NDArray[np.float32]


def refine_scene(seed: int, size_wh: tuple[int, int]) -> RefineScene:
    """The middle of the scene of a seed, of a size in pixels, with the mask of its occlusions."""
    width, height = size_wh
    # Scenes are drawn 16 to 9; what sticks out on either side is cut off.
    scene = draw_scene(seed, (max(width, -(-height * 16 // 9)), max(height, -(-width * 9 // 16))))
    top, left = (scene.rgb.shape[0] - height) // 2, (scene.rgb.shape[1] - width) // 2
    window = slice(top, top + height), slice(left, left + width)
    truth = np.ascontiguousarray(scene.truth[window])
    return RefineScene(np.ascontiguousarray(scene.rgb[window]), truth, rough_mask(truth))


def rough_mask(truth: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The truth as a segmenter would find it at best: averaged over coarse cells, scaled up, cut at a half."""
    height, width = truth.shape
    share = CELLS / max(height, width)
    cells = max(1, round(width * share)), max(1, round(height * share))
    coarse = cv2.resize(truth.astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    return (cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5).astype(np.float32)
