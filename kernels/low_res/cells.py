"""Cells: output pixels that are made from the same few low-res values, judged and interpolated together."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats
from maskrt.kernels.jit import contracted_function, kernel
from maskrt.kernels.low_res.types import Placement
from maskrt.kernels.resample.cpu import taps

Indices = NDArray[np.int32]
Counts = NDArray[np.int64]
Codes = NDArray[np.int8]
Part = tuple[int, int, int, int]  # y0, y1, x0, x1 of output pixels, stops exclusive
# For one cell of columns: low-res rows, one row of the square, its rows, output rows.
Scratch = tuple[Floats, Floats, Floats, Floats]

# A computed pixel can leave the range of its low-res values by a few roundings of 2**-24; this is a hundred of them.
SLACK = np.float32(6e-6)
TINY = np.float32(1e-37)  # products below the smallest normal number round by more
ONE = np.float32(1)
MIXED = -1


class Axis(NamedTuple):
    """The tables of one direction.

    For every output pixel: near, far are its two indices into the square, share is the weight of the second; from_, to
    are the first and the last low-res index that it depends on, both ascending; cell is the cell that it lies in. For
    every index into the square: low_near, low_far, low_share are the same into the low-res mask. starts: the first
    pixel of every cell, and the end.
    """

    near: Indices
    far: Indices
    share: Floats
    low_near: Indices
    low_far: Indices
    low_share: Floats
    from_: Indices
    to: Indices
    cell: Indices
    starts: Indices


@lru_cache(maxsize=16)
def axes(side: int, placement: Placement) -> tuple[Axis, Axis]:
    rows, columns = (_axis(side, placement.square, placement.input_hw[i], placement.size_hw[i]) for i in (0, 1))
    return rows, columns


def _axis(side: int, square: int, input_size: int, size: int) -> Axis:
    near, far, share = taps(input_size, size)
    low_near, low_far, low_share = taps(side, square)
    first, last = low_near[near], low_far[far]
    changes = (np.diff(first) != 0) | (np.diff(last) != 0)
    cell = np.concatenate([[0], np.cumsum(changes)]).astype(np.int32)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1, [size]]).astype(np.int32)
    return Axis(near, far, share, low_near, low_far, low_share, first, last, cell, starts)


@kernel
def reach(axis: Axis, first: int, last: int) -> tuple[int, int]:
    """Return the output pixels, stop exclusive, that depend on a low-res index from first to last: whole cells only."""
    start, stop = 0, axis.from_.size
    while start < stop and axis.to[start] < first:
        start += 1
    while stop > start and axis.from_[stop - 1] > last:
        stop -= 1
    return start, stop


@kernel
def scratch_for(rows: Axis, columns: Axis, part: Part) -> Scratch:
    """Allocate room for one cell of columns; see Scratch."""
    y0, y1, x0, x1 = part
    widest, squares = 1, 1
    for cell in range(columns.cell[x0], columns.cell[x1 - 1] + 1):
        start, stop = columns.starts[cell], columns.starts[cell + 1]
        widest, squares = max(widest, stop - start), max(squares, columns.far[stop - 1] - columns.near[start] + 1)
    low_rows, square_rows = rows.to[y1 - 1] - rows.from_[y0] + 1, rows.far[y1 - 1] - rows.near[y0] + 1
    return (
        np.empty((low_rows, squares), np.float32),
        np.empty(squares, np.float32),
        np.empty((square_rows, widest), np.float32),
        np.empty((y1 - y0, widest), np.float32),
    )


@kernel
def decided(low: np.float32, high: np.float32, threshold: np.float32) -> int:
    """Return 1 if every value between low and high is above the threshold, 0 if none is, MIXED if neither is sure."""
    slack = SLACK * max(abs(low), abs(high)) + TINY
    return 1 if low - slack > threshold else 0 if high + slack <= threshold else MIXED


@kernel
def judge(low: Floats, row: int, column: int, rows: Axis, columns: Axis, part: Part, thresholds: Floats) -> Codes:
    """Return `decided` for every cell in the part and every threshold: int8 [T, cells of columns, cells of rows].

    low: the low-res values from (row, column) on. Except for one transpose, the inner loops run along lines of memory,
    and so on vectors.
    """
    y0, y1, x0, x1 = part
    top, left = rows.cell[y0], columns.cell[x0]
    row_cells, column_cells = rows.cell[y1 - 1] - top + 1, columns.cell[x1 - 1] - left + 1
    first = columns.from_[x0]
    lines = columns.to[x1 - 1] - first + 1
    # Over the low-res rows that a cell of rows depends on. Low-res columns are the lines, for the loop that follows.
    smallest, largest = np.empty((lines, row_cells), np.float32), np.empty((lines, row_cells), np.float32)
    for k in range(row_cells):
        y = rows.starts[top + k]
        lowest = low[rows.from_[y] - row, first - column : first - column + lines].copy()
        highest = lowest.copy()
        for r in range(rows.from_[y] + 1 - row, rows.to[y] + 1 - row):
            values = low[r, first - column : first - column + lines]
            for c in range(lines):
                lowest[c], highest[c] = min(lowest[c], values[c]), max(highest[c], values[c])
        for c in range(lines):
            smallest[c, k], largest[c, k] = lowest[c], highest[c]
    codes = np.empty((thresholds.size, column_cells, row_cells), np.int8)
    for cell in range(column_cells):
        x = columns.starts[left + cell]
        lowest, highest = smallest[columns.from_[x] - first].copy(), largest[columns.from_[x] - first].copy()
        for c in range(columns.from_[x] + 1 - first, columns.to[x] + 1 - first):
            small, large = smallest[c], largest[c]
            for k in range(row_cells):
                lowest[k], highest[k] = min(lowest[k], small[k]), max(highest[k], large[k])
        for t in range(thresholds.size):
            own, threshold = codes[t, cell], thresholds[t]
            for k in range(row_cells):
                own[k] = decided(lowest[k], highest[k], threshold)
    return codes


@contracted_function
def interpolate(
    low: Floats, row: int, column: int, rows: Axis, columns: Axis, part: Part, top: int, scratch: Scratch
) -> None:
    """Write the pixels y, x0 to x1, into the tile's row y - top.

    The order is low-res columns, square rows, output columns, output rows. Each step takes whole lines of a few pixels,
    so that it runs on vectors.
    """
    y0, y1, x0, x1 = part
    wide, square, lines, tile = scratch
    first_row, first_line, first_column = rows.from_[y0], rows.near[y0], columns.near[x0]
    squares = columns.far[x1 - 1] - first_column + 1
    for r in range(first_row, rows.to[y1 - 1] + 1):
        for c in range(squares):
            a, b = columns.low_near[first_column + c] - column, columns.low_far[first_column + c] - column
            share = columns.low_share[first_column + c]
            wide[r - first_row, c] = low[r - row, a] * (ONE - share) + low[r - row, b] * share
    for s in range(first_line, rows.far[y1 - 1] + 1):
        a, b, share = rows.low_near[s] - first_row, rows.low_far[s] - first_row, rows.low_share[s]
        for c in range(squares):
            square[c] = wide[a, c] * (ONE - share) + wide[b, c] * share
        for x in range(x1 - x0):
            near, far = columns.near[x0 + x] - first_column, columns.far[x0 + x] - first_column
            share = columns.share[x0 + x]
            lines[s - first_line, x] = square[near] * (ONE - share) + square[far] * share
    for y in range(y0, y1):
        a, b, share = rows.near[y] - first_line, rows.far[y] - first_line, rows.share[y]
        for x in range(x1 - x0):
            tile[y - top, x] = lines[a, x] * (ONE - share) + lines[b, x] * share
