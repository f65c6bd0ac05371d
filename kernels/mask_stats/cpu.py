"""A mask's statistics in Numba. Run lengths are column-major, but every loop here reads the mask row by row."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Mask
from maskrt.kernels.jit import kernel
from maskrt.kernels.mask_stats.reference import check_mask


def box_and_counts(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the box and the run lengths of a mask.

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


@kernel
def _box_and_edges(mask: Mask, box: NDArray[np.int32], edges: NDArray[np.int64]) -> None:
    """Set the box, and edges[x + 1] to the number of pixels in column x that differ from the one before.

    The one before is the pixel before it in column order.
    """
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
    """Write column-major indices of the same pixels, ascending; next_edge[x] starts as the edges before column x."""
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
