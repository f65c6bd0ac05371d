"""Masks measured straight from low-res logits on a GPU, with a thread for every few cells of a mask.

As on the CPU, a cell whose low-res values are all on one side of the thresholds is counted without computing a pixel.
The pixels of the other cells are interpolated one by one.
"""

from functools import lru_cache

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from maskrt.kernels import device
from maskrt.kernels.arrays import Floats
from maskrt.kernels.low_res.cells import SLACK, TINY, Axis, Counts, axes
from maskrt.kernels.low_res.reference import check_measure, check_window
from maskrt.kernels.low_res.types import Box, Placement, Window
from maskrt.kernels.mask_stats.cuda import measure
from maskrt.kernels.resample.cuda import lerp

LANES = 4096  # the most threads for one mask: each adds its counts once


def measure_masks(
    low_res: Floats, placement: Placement, thresholds: Floats, min_stability: float, stability: Floats, box: Box
) -> None:
    """Measure the stability of every mask at full size, and the boxes of the stable ones.

    Args:
        low_res: float32 [N, l, l], C-contiguous, finite logits. May be on the device.
        placement: where all masks lie.
        thresholds: float32 [3], ascending: low, middle, high. Stability is the number of pixels above high over that
            above low; the mask itself is what lies above the middle one.
        min_stability: rounded to float32; 0 or less keeps every mask.
        stability: float32 [N], overwritten: NaN for a mask without pixels above low, 0 for one below min_stability.
        box: int32 [N, 4], overwritten: x0 y0 x1 y1 of the mask, last pixel inclusive; 0 0 0 0 for an empty one and for
            one below min_stability.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: reference.measure_masks is the definition.
    """
    check_measure(low_res, placement, thresholds, stability, box)
    rows, columns = _device_axes(low_res.shape[1], placement)
    height, width = placement.size_hw
    masks = len(low_res)
    above = device.full((masks, 2), 0, np.int64)
    extents = device.to_device(np.tile(np.array([width, height, -1, -1], np.int32), (masks, 1)))
    cells = (rows.starts.size - 1) * (columns.starts.size - 1)
    lanes = min(cells, LANES)
    logits, limits = device.to_device(low_res), device.to_device(thresholds)
    device.launch(_measure, masks * lanes, logits, rows, columns, limits, lanes, above, extents)
    above_low, above_high = device.to_host(above).T
    with np.errstate(invalid="ignore"):  # 0 / 0: a mask without pixels
        np.divide(above_high.astype(np.float32), above_low.astype(np.float32), out=stability)
    box[:] = device.to_host(extents)
    unstable = (stability < np.float32(min_stability)) & (min_stability > 0)
    stability[unstable] = 0
    box[(box[:, 2] < 0) | unstable] = 0


def mask_counts(window: Window, side: int, placement: Placement, threshold: float, box: Box) -> Counts:
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

    Source: reference.mask_counts is the definition.
    """
    check_window(window, side, placement, box)
    rows, columns = _device_axes(side, placement)
    x0, y0, x1, y1 = box.tolist()
    part, limit = (y0, y1 + 1, x0, x1 + 1), np.float32(threshold)
    mask, values = device.empty(placement.size_hw, np.bool_), device.to_device(window.values)
    device.launch(_draw, mask.size, values, window.row, window.column, rows, columns, part, limit, mask)
    return measure(mask)[1]


@lru_cache(maxsize=16)
def _device_axes(side: int, placement: Placement) -> tuple[Axis, Axis]:
    rows, columns = (Axis(*map(device.to_device, axis)) for axis in axes(side, placement))
    return rows, columns


@device.kernel
def _measure(
    low_res: Floats, rows: Axis, columns: Axis, thresholds: Floats, lanes: int, above: Counts, extents: Box
) -> None:
    """Add to above[n] the pixels above the first and the last threshold; grow extents[n] to the middle one's box."""
    row_cells, column_cells = rows.starts.size - 1, columns.starts.size - 1
    least, middle, most = thresholds[0], thresholds[1], thresholds[2]
    for task in range(cuda.grid(1), low_res.shape[0] * lanes, cuda.gridsize(1)):
        n = task // lanes
        low = low_res[n]
        above_low, above_high = 0, 0
        left, top, right, bottom = columns.cell.size, rows.cell.size, -1, -1
        for cell in range(task % lanes, row_cells * column_cells, lanes):
            row_cell, column_cell = cell // column_cells, cell % column_cells
            y0, y1 = rows.starts[row_cell], rows.starts[row_cell + 1]
            x0, x1 = columns.starts[column_cell], columns.starts[column_cell + 1]
            smallest, largest = _range(low, rows.from_[y0], rows.to[y0], columns.from_[x0], columns.to[x0])
            slack = SLACK * max(abs(smallest), abs(largest)) + TINY
            if largest + slack <= least:
                continue
            if smallest - slack > most:
                above_low += (y1 - y0) * (x1 - x0)
                above_high += (y1 - y0) * (x1 - x0)
                left, top, right, bottom = min(left, x0), min(top, y0), max(right, x1 - 1), max(bottom, y1 - 1)
                continue
            for y in range(y0, y1):
                for x in range(x0, x1):
                    value = _pixel(low, 0, 0, rows, columns, y, x)
                    above_low += value > least
                    above_high += value > most
                    if value > middle:
                        left, top, right, bottom = min(left, x), min(top, y), max(right, x), max(bottom, y)
        cuda.atomic.add(above, (n, 0), above_low)
        cuda.atomic.add(above, (n, 1), above_high)
        if right >= 0:
            cuda.atomic.min(extents, (n, 0), left)
            cuda.atomic.min(extents, (n, 1), top)
            cuda.atomic.max(extents, (n, 2), right)
            cuda.atomic.max(extents, (n, 3), bottom)


@device.kernel
def _draw(
    low: Floats,
    row: int,
    column: int,
    rows: Axis,
    columns: Axis,
    part: tuple[int, int, int, int],
    threshold: np.float32,
    mask: NDArray[np.bool_],
) -> None:
    """Draw the mask within a part of the picture, nothing outside. low: the values from (row, column) on."""
    y0, y1, x0, x1 = part
    width = mask.shape[1]
    for task in range(cuda.grid(1), mask.size, cuda.gridsize(1)):
        y, x = task // width, task % width
        inside = y0 <= y and y < y1 and x0 <= x and x < x1
        mask[y, x] = inside and _pixel(low, row, column, rows, columns, y, x) > threshold


@device.function
def _range(low: Floats, top: int, bottom: int, left: int, right: int) -> tuple[np.float32, np.float32]:
    """Return the smallest and the largest of some low-res values, stops inclusive."""
    smallest = largest = low[top, left]
    for r in range(top, bottom + 1):
        for c in range(left, right + 1):
            smallest, largest = min(smallest, low[r, c]), max(largest, low[r, c])
    return smallest, largest


@device.function
def _pixel(low: Floats, row: int, column: int, rows: Axis, columns: Axis, y: int, x: int) -> np.float32:
    """Return one output pixel, rounded as the dense two-step resize rounds."""
    return lerp(
        _on_line(low, row, column, rows, columns, rows.near[y], x),
        _on_line(low, row, column, rows, columns, rows.far[y], x),
        rows.share[y],
    )


@device.function
def _on_line(low: Floats, row: int, column: int, rows: Axis, columns: Axis, s: int, x: int) -> np.float32:
    """Return column x of the output, on row s of the square."""
    return lerp(
        _in_square(low, row, column, rows, columns, s, columns.near[x]),
        _in_square(low, row, column, rows, columns, s, columns.far[x]),
        columns.share[x],
    )


@device.function
def _in_square(low: Floats, row: int, column: int, rows: Axis, columns: Axis, s: int, q: int) -> np.float32:
    """Return the value of the square at row s, column q."""
    a, b = rows.low_near[s] - row, rows.low_far[s] - row
    c, d, share = columns.low_near[q] - column, columns.low_far[q] - column, columns.low_share[q]
    return lerp(lerp(low[a, c], low[a, d], share), lerp(low[b, c], low[b, d], share), rows.low_share[s])
