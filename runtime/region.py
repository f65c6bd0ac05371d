"""The region of interest: checks, and the way from its coordinates back to the frame's."""

import dataclasses
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError
from maskrt.runtime.rle import move_rle
from maskrt.runtime.types import Roi, Segments, Stages

ScalarT = TypeVar("ScalarT", bound=np.generic)


def checked_roi(rgb: NDArray[np.uint8], roi: Roi | None) -> Roi:
    """Check the ROI and return it, or the whole frame for None.

    Raises:
        InputError: the frame is not uint8 [H, W, 3], or the ROI is not four integers, is empty or leaves the frame.
    """
    if not isinstance(rgb, np.ndarray):
        raise InputError(f"expected an RGB frame, uint8 [H, W, 3], got {type(rgb).__name__}")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise InputError(f"expected an RGB frame, uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    height, width = rgb.shape[:2]
    if roi is None:
        return 0, 0, width, height
    if len(roi) != 4 or not all(isinstance(value, int | np.integer) for value in roi):
        raise InputError(f"ROI {roi}: expected four integers, x, y, width and height in pixels")
    x, y, w, h = roi
    if w < 1 or h < 1 or x < 0 or y < 0 or x + w > width or y + h > height:
        raise InputError(f"ROI x={x} y={y} width={w} height={h} does not lie in the {width} x {height} frame")
    return x, y, w, h


def cut(values: NDArray[ScalarT], roi: Roi) -> NDArray[ScalarT]:
    """Cut the region out of a frame: [h, w, ...] of [H, W, ...], C-contiguous."""
    x, y, width, height = roi
    return np.ascontiguousarray(values[y : y + height, x : x + width])


def in_frame(values: NDArray[ScalarT], roi: Roi, size_hw: tuple[int, int]) -> NDArray[ScalarT]:
    """Place the ROI's values, [h, w], in a frame of zeros, [H, W]."""
    x, y, width, height = roi
    frame = np.zeros(size_hw, values.dtype)
    frame[y : y + height, x : x + width] = values
    return frame


def segments_in_frame(segments: Segments, roi: Roi, size_hw: tuple[int, int]) -> Segments:
    """Move segments of the ROI to frame coordinates."""
    x, y, width, height = roi
    if (x, y, height, width) == (0, 0, *size_hw):
        return segments
    return dataclasses.replace(
        segments,
        size_hw=size_hw,
        rles=tuple(move_rle(rle, (x, y), size_hw) for rle in segments.rles),
        boxes_xyxy=segments.boxes_xyxy + np.array([x, y, x, y], np.int32),
        points_xy=segments.points_xy + np.array([x, y], np.float64),
    )


def stages_in_frame(stages: Stages, roi: Roi) -> Stages:
    """Move the windows that a two-stage segmenter looked at again in the ROI to frame coordinates."""
    x, y, _, _ = roi
    windows = tuple((left + x, top + y, width, height) for left, top, width, height in stages.windows_xywh)
    return dataclasses.replace(stages, windows_xywh=windows)


def fit_size_hw(size_hw: tuple[int, int], limit_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image scaled, up or down, to fit a box; a side is rounded half up and at least 1 pixel."""
    scale = min(limit_hw[0] / size_hw[0], limit_hw[1] / size_hw[1])
    return max(1, int(size_hw[0] * scale + 0.5)), max(1, int(size_hw[1] * scale + 0.5))
