"""A mask's statistics on a GPU, a thread for every column: run lengths are column-major."""

from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from maskrt.kernels import device
from maskrt.kernels.arrays import Mask
from maskrt.kernels.mask_stats.reference import check_mask

Counts = NDArray[np.int64]


def box_and_counts(mask: Mask) -> tuple[NDArray[np.int32], Counts]:
    """Return the box and the run lengths of a mask.

    Args:
        mask: bool [H, W], C-contiguous, at least one pixel. May be on the device.

    Returns:
        box int32 [4], x0 y0 x1 y1 with the last pixel inclusive, all 0 for an empty mask; counts int64 [R],
        column-major run lengths that start with background (0 if the first pixel is foreground).

    Raises:
        ValueError: the dtype or layout differs, or there are no pixels.

    Source: reference.box_and_counts is the definition.
    """
    check_mask(mask)
    return measure(device.to_device(mask))


def measure(mask: Any) -> tuple[NDArray[np.int32], Counts]:
    """Return what box_and_counts returns, for a mask on the device."""
    height, width = mask.shape
    extent = device.to_device(np.array([width, height, -1, -1], np.int32))
    edges_before = device.empty(width + 1, np.int64)
    device.launch(_box_and_edges, width, mask, extent, edges_before)
    places = np.cumsum(device.to_host(edges_before))
    edges = device.empty(int(places[-1]), np.int64)
    device.launch(_place_edges, width if places[-1] else 0, mask, device.to_device(places), edges)
    # A mask whose first pixel is foreground has an edge there, before which 0 pixels of background lie.
    counts = np.diff(device.to_host(edges), prepend=0, append=height * width)
    box = device.to_host(extent)
    return (box if box[2] >= 0 else np.zeros(4, np.int32)), counts


@device.kernel
def _box_and_edges(mask: Mask, extent: NDArray[np.int32], edges: Counts) -> None:
    """Grow the extent, and set edges[x + 1] to the number of pixels in column x that differ from the one before.

    The one before is the pixel before it in column order.
    """
    height, width = mask.shape
    for x in range(cuda.grid(1), width, cuda.gridsize(1)):
        before = mask[height - 1, x - 1] if x > 0 else False
        top, bottom, count = height, -1, 0
        for y in range(height):
            pixel = mask[y, x]
            if pixel != before:
                count += 1
            if pixel:
                top = min(top, y)
                bottom = y
            before = pixel
        edges[x + 1] = count
        if x == 0:
            edges[0] = 0
        if bottom >= 0:
            cuda.atomic.min(extent, 0, x)
            cuda.atomic.min(extent, 1, top)
            cuda.atomic.max(extent, 2, x)
            cuda.atomic.max(extent, 3, bottom)


@device.kernel
def _place_edges(mask: Mask, edges_before: Counts, edges: Counts) -> None:
    """Write the column-major indices of the same pixels, ascending; those of column x from edges_before[x] on."""
    height, width = mask.shape
    for x in range(cuda.grid(1), width, cuda.gridsize(1)):
        before = mask[height - 1, x - 1] if x > 0 else False
        at = edges_before[x]
        for y in range(height):
            pixel = mask[y, x]
            if pixel != before:
                edges[at] = x * height + y
                at += 1
            before = pixel
