"""Pictures for people: a mask over its image, and segments in colours. They contain the patient's image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.runtime.types import Roi, Segments

MASK_RGB = (255, 64, 160)  # pink: neither skin, linen nor equipment
ROI_RGB = (255, 220, 0)
WINDOW_RGB = (0, 200, 255)
TINT = 0.4  # share of the mask's colour; the picture below stays readable


def overlay(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], roi: Roi) -> NDArray[np.uint8]:
    """Return the image with the mask tinted and outlined, and the region of interest framed.

    Args:
        rgb: uint8 [H, W, 3].
        mask: bool [H, W].
        roi: x, y, width, height in pixels.

    Returns:
        uint8 [H, W, 3], a new array.
    """
    picture = rgb.copy()
    # A table of 256 values per channel: at 1920 x 1080 blending in float took at least twice the time.
    values = np.arange(256)
    for channel, colour in enumerate(MASK_RGB):
        table = ((1 - TINT) * values + TINT * colour + 0.5).astype(np.uint8)
        np.copyto(picture[:, :, channel], table[rgb[:, :, channel]], where=mask)
    width = _line(mask.shape)
    picture[outline(mask, width)] = MASK_RGB
    _frame(picture, roi, width, ROI_RGB)
    return picture


def outline(mask: NDArray[np.bool_], width: int = 1) -> NDArray[np.bool_]:
    """Return the mask's pixels within `width` steps (4-neighbourhood) of the background; beyond the border is none."""
    inner = mask
    for _ in range(width):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def segments_picture(segments: Segments, size_hw: tuple[int, int] | None = None, seed: int = 0) -> NDArray[np.uint8]:
    """Paint every segment in a colour of its own, from large to small so that none is hidden.

    Args:
        segments: any number of them.
        size_hw: the picture's size; None keeps the segments' own, another one is sampled nearest.
        seed: the seed of the colours.

    Returns:
        uint8 [H, W, 3], black where there is no segment.
    """
    height, width = segments.size_hw
    owner = np.zeros(height * width, np.int32)  # column order, as the run lengths are
    for index in np.argsort(-segments.area, kind="stable"):
        ends = np.cumsum(segments.rles[index]["counts"])
        for start, end in zip(ends[0::2], ends[1::2], strict=False):
            owner[start:end] = index + 1
    # 64 and up: no colour close to the black background.
    colours = np.random.default_rng(seed).integers(64, 256, (len(segments) + 1, 3)).astype(np.uint8)
    colours[0] = 0
    picture: NDArray[np.uint8] = colours[owner.reshape(width, height).T]
    if size_hw is not None and size_hw != segments.size_hw:
        picture = np.array(Image.fromarray(picture).resize(size_hw[::-1], Image.Resampling.NEAREST))
    return picture


def framed(rgb: NDArray[np.uint8], windows_xywh: Sequence[Roi]) -> NDArray[np.uint8]:
    """Return the image, a new uint8 [H, W, 3], with the windows framed that a two-stage segmenter looked at again."""
    picture = rgb.copy()
    for window in windows_xywh:
        _frame(picture, window, 2 * _line(rgb.shape), WINDOW_RGB)
    return picture


def _line(shape: tuple[int, ...]) -> int:
    """Return the width in pixels of a line that is visible in a picture [H, W, ...]."""
    return max(1, round(min(shape[:2]) / 540))


def _frame(picture: NDArray[np.uint8], window: Roi, width: int, colour: tuple[int, int, int]) -> None:
    """Draw a window's border inside it, in place."""
    x, y, w, h = window
    inside = picture[y : y + h, x : x + w]
    for side in (inside[:width], inside[-width:], inside[:, :width], inside[:, -width:]):
        side[:] = colour
