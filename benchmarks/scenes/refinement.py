"""Held-out scenes for refiners: a picture, its truth, and a mask as rough as a segmenter's."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.scenes.bedside import draw_scene

CELLS = 128  # on the longer side: a 512-pixel segmenter that answers at a quarter of its input


@dataclass(frozen=True)
class RefineScene:
    """A picture with its masks. rgb: uint8 [H, W, 3]; truth: bool [H, W]; rough: float32 [H, W], 0 or 1."""

    rgb: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    rough: NDArray[np.float32]


def refine_scene(seed: int, size_wh: tuple[int, int]) -> RefineScene:
    """Draw the scene of a seed, and return its middle of a size in pixels, with the mask of its occlusions."""
    width, height = size_wh
    # Scenes are drawn 16 to 9; the surplus on either side is cut off.
    scene = draw_scene(seed, (max(width, -(-height * 16 // 9)), max(height, -(-width * 9 // 16))))
    top, left = (scene.rgb.shape[0] - height) // 2, (scene.rgb.shape[1] - width) // 2
    window = slice(top, top + height), slice(left, left + width)
    truth = np.ascontiguousarray(scene.truth[window])
    return RefineScene(np.ascontiguousarray(scene.rgb[window]), truth, rough_mask(truth))


def rough_mask(truth: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the best mask that a segmenter could find: averaged over coarse cells, scaled up, cut at a half."""
    height, width = truth.shape
    share = CELLS / max(height, width)
    cells = max(1, round(width * share)), max(1, round(height * share))
    coarse = cv2.resize(truth.astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine > 0.5, np.float32)
