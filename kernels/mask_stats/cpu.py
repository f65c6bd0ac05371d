"""A mask's statistics in Numba. Run lengths are column-major, but every loop here reads the mask row by row."""

import numpy as np
from numba import prange
from numpy.typing import NDArray

from maskrt.kernels.checks import check_array
from maskrt.kernels.jit import kernel, parallel_kernel
from maskrt.kernels.mask_stats.reference import Logits, Mask, check_mask


def count_above(logits: Logits, low: float, high: float) -> tuple[int, int]:
    """Pixels above each of two thresholds: the union and the intersection of SAM's stability score.

    Args:
        logits: float32 [H, W], C-contiguous.
        low, high: thresholds, rounded to float32 before they are compared, as PyTorch does.

    Returns:
        Pixels > low, pixels > high.

    Raises:
        ValueError: the dtype or layout differs.

    Source: reference.count_above is the definition.
    """
    check_array("logits", logits, np.float32, (None, None))
    above_low, above_high = _count_above(logits, np.float32(low), np.float32(high))
    return int(above_low), int(above_high)


def box_and_counts(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The box and the run lengths of a mask.

    Args:
        mask: bool [H, W], C-contiguous, at least one pixel.

    Returns:
        box int32 [4], x0 y0 x1 y1 with the last pixel inclusive, all 0 for an empty mask; counts int64 [R],
        column-major run lengths that start with background (0 if the first pixel is foreground).

    Raises:
        ValueError: the dtype or layout differs, or there are no pixels.

    Source: reference.box_and_counts is the definition.
    """
    check_mask(mask)
    box = np.zeros(4, np.int32)
    edges_before = np.zeros(mask.shape[1] + 1, np.int64)
    _box_and_edges(mask, box, edges_before)
    np.cumsum(edges_before, out=edges_before)
    edges = np.empty(edges_before[-1], np.int64)
    _place_edges(mask, edges_before[:-1], edges)
    counts = np.diff(edges, prepend=0, append=mask.size)
    return box, np.concatenate([np.zeros(1, np.int64), counts]) if mask[0, 0] else counts


@parallel_kernel
def _count_above(logits: Logits, low: np.float32, high: np.float32) -> tuple[int, int]:
    above_low = 0
    above_high = 0
    for y in prange(logits.shape[0]):
        row_low = 0
        row_high = 0
        for x in range(logits.shape[1]):
            row_low += logits[y, x] > low
            row_high += logits[y, x] > high
        above_low += row_low
        above_high += row_high
    return above_low, above_high


@kernel
def _box_and_edges(mask: Mask, box: NDArray[np.int32], edges: NDArray[np.int64]) -> None:
    """edges[x + 1] becomes the number of pixels in column x that differ from the one before, in column order."""
    height, width = mask.shape
    columns = np.zeros(width, np.bool_)
    top, bottom = -1, -1
    for x in range(1, width):
        edges[x + 1] += mask[0, x] != mask[height - 1, x - 1]
    for y in range(height):
        filled = False
        for x in range(width):
            filled |= mask[y, x]
            columns[x] |= mask[y, x]
        if filled:
            bottom = y
            if top < 0:
                top = y
        if y > 0:
            for x in range(width):
                edges[x + 1] += mask[y, x] != mask[y - 1, x]
    if top >= 0:
        inside = np.flatnonzero(columns)
        box[0], box[1], box[2], box[3] = inside[0], top, inside[-1], bottom


@kernel
def _place_edges(mask: Mask, next_edge: NDArray[np.int64], edges: NDArray[np.int64]) -> None:
    """Column-major indices of the same pixels, ascending; next_edge[x] starts as the edges before column x."""
    height, width = mask.shape
    for x in range(1, width):
        if mask[0, x] != mask[height - 1, x - 1]:
            edges[next_edge[x]] = x * height
            next_edge[x] += 1
    for y in range(1, height):
        for x in range(width):
            if mask[y, x] != mask[y - 1, x]:
                edges[next_edge[x]] = x * height + y
                next_edge[x] += 1
