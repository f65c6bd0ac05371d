"""The definition: every mask is upsampled to full size in two steps, then measured."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats
from maskrt.kernels.checks import check_array
from maskrt.kernels.low_res.types import Box, Placement, Window
from maskrt.kernels.mask_stats import reference as mask_stats
from maskrt.kernels.resample import reference as resample


def measure_masks(
    low_res: Floats, placement: Placement, thresholds: Floats, min_stability: float, stability: Floats, box: Box
) -> None:
    """Measure the stability of every mask at full size, and the boxes of the stable ones.

    Args:
        low_res: float32 [N, l, l], C-contiguous, finite logits.
        placement: where all masks lie.
        thresholds: float32 [3], ascending: low, middle, high. Stability is the number of pixels above high over that
            above low; the mask itself is what lies above the middle one.
        min_stability: rounded to float32; 0 or less keeps every mask.
        stability: float32 [N], overwritten: NaN for a mask without pixels above low, 0 for one below min_stability.
        box: int32 [N, 4], overwritten: x0 y0 x1 y1 of the mask, last pixel inclusive; 0 0 0 0 for an empty one and for
            one below min_stability.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: segment_anything.utils.amg.calculate_stability_score and batched_mask_to_box, without the overflow of
    upstream's int16 row sums past 32,767 pixels of width.
    """
    check_measure(low_res, placement, thresholds, stability, box)
    box[:] = 0
    for index, logits in enumerate(low_res):
        full = _full_size(logits, placement)
        union, intersection = ((full > threshold).sum() for threshold in thresholds[[0, 2]])
        ratio = np.float32(intersection) / np.float32(union) if union else np.float32(np.nan)
        kept = min_stability <= 0 or ratio >= np.float32(min_stability)
        stability[index] = ratio if kept or not union else 0
        if kept:
            box[index] = mask_stats.box_and_counts(full > thresholds[1])[0]


def mask_counts(window: Window, side: int, placement: Placement, threshold: float, box: Box) -> NDArray[np.int64]:
    """Return the run lengths of one mask at full size, column-major, starting with background.

    Args:
        window: a part of the low-res mask, at least what `window_of` returns for the box.
        side: the side of the whole low-res mask.
        placement: see measure_masks.
        threshold: rounded to float32; the mask is what lies above.
        box: int32 [4], as measure_masks returned it.

    Returns:
        int64 [R], see mask_stats.box_and_counts.

    Raises:
        ValueError: the window does not hold what the box needs.
    """
    check_window(window, side, placement, box)
    height, width = window.values.shape
    logits = np.full((side, side), -np.inf, np.float32)
    logits[window.row : window.row + height, window.column : window.column + width] = window.values
    with np.errstate(invalid="ignore"):  # -inf * 0 beside the window, where the box says there is nothing
        full = _full_size(logits, placement)
    inside = np.zeros(full.shape, np.bool_)
    x0, y0, x1, y1 = box.tolist()
    inside[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask_stats.box_and_counts(inside & (full > np.float32(threshold)))[1]


def window_of(logits: Floats, placement: Placement, box: Box) -> Window:
    """Copy the part of a low-res mask, float32 [l, l], that decides the pixels of a box."""
    (top, bottom), (left, right) = _needed(logits.shape[0], placement, box)
    return Window(np.ascontiguousarray(logits[top:bottom, left:right]), top, left)


def check_measure(low_res: Floats, placement: Placement, thresholds: Floats, stability: Floats, box: Box) -> None:
    """Raise ValueError unless the arguments are as `measure_masks` wants them."""
    check_array("low_res", low_res, np.float32, (None, low_res.shape[-1], low_res.shape[-1]))
    check_array("thresholds", thresholds, np.float32, (3,))
    check_array("stability", stability, np.float32, (len(low_res),))
    check_array("box", box, np.int32, (len(low_res), 4))
    if not thresholds[0] <= thresholds[1] <= thresholds[2]:
        raise ValueError(f"thresholds {thresholds.tolist()} do not ascend")
    _check_placement(low_res.shape[-1], placement)


def check_window(window: Window, side: int, placement: Placement, box: Box) -> None:
    """Raise ValueError unless the arguments are as `mask_counts` wants them."""
    check_array("window", window.values, np.float32, (None, None))
    check_array("box", box, np.int32, (4,))
    _check_placement(side, placement)
    (top, bottom), (left, right) = _needed(side, placement, box)
    height, width = window.values.shape
    if not (window.row <= top < bottom <= window.row + height <= side) or not (
        window.column <= left < right <= window.column + width <= side
    ):
        raise ValueError(
            f"the box {box.tolist()} needs rows {top} to {bottom} and columns {left} to {right} of the low-res mask; "
            f"the window holds {height} x {width} from {window.row}, {window.column}"
        )


def _check_placement(side: int, placement: Placement) -> None:
    sizes = side, placement.square, *placement.input_hw, *placement.size_hw
    if min(sizes) < 1 or max(placement.input_hw) > placement.square:
        raise ValueError(f"cannot place a low-res mask of side {side} with {placement}")


def _needed(side: int, placement: Placement, box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and columns, stop exclusive, that the pixels of a box are interpolated from."""
    x0, y0, x1, y1 = box.tolist()
    spans = []
    for axis, first, last in ((0, y0, y1), (1, x0, x1)):
        near, far, _ = resample.taps(placement.input_hw[axis], placement.size_hw[axis])
        if not 0 <= first <= last < near.size:
            raise ValueError(f"the box {box.tolist()} leaves the image of {list(placement.size_hw)}")
        low_near, low_far, _ = resample.taps(side, placement.square)
        spans.append((int(low_near[near[first]]), int(low_far[far[last]]) + 1))
    return spans[0], spans[1]


def _full_size(logits: Floats, placement: Placement) -> Floats:
    square = np.empty((1, placement.square, placement.square), np.float32)
    resample.resize_bilinear(np.ascontiguousarray(logits)[None], square)
    height, width = placement.input_hw
    full = np.empty((1, *placement.size_hw), np.float32)
    resample.resize_bilinear(np.ascontiguousarray(square[:, :height, :width]), full)
    plane: Floats = full[0]
    return plane
