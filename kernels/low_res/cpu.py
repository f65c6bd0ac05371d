"""Masks measured straight from low-res logits, in Numba.

Every pixel is a chain of linear interpolations, so it lies between the smallest and the largest of the few low-res
values it is made from. Cells of pixels that are made from the same values, all of them on one side of a threshold, are
counted without looking at one. The other pixels, a band along the outline, are interpolated in the order and with the
roundings of the dense two-step resize: the answer is the same bit for bit, and no array of the image's size is made.
Unstable masks often fall by the sure cells alone, and only stable ones get a box.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.jit import contracted_function, kernel
from maskrt.kernels.low_res.reference import Box, Floats, Placement, Window, check_measure, check_window
from maskrt.kernels.resample.cpu import taps

Indices = NDArray[np.int32]
Counts = NDArray[np.int64]
Codes = NDArray[np.int8]
Part = tuple[int, int, int, int]  # y0, y1, x0, x1 of output pixels, stops exclusive
# Extremes of low-res rows; then, for one cell of columns: low-res rows, one row of the square, its rows, output rows.
Scratch = tuple[Floats, Floats, Floats, Floats, Floats]

# A computed pixel can leave the range of its low-res values by a few roundings of 2**-24; this is a hundred of them.
SLACK = np.float32(6e-6)
TINY = np.float32(1e-37)  # products below the smallest normal number round by more
ONE = np.float32(1)
MIXED = -1
EDGES_PER_COLUMN = 6  # room for the first try; two are usual


class Axis(NamedTuple):
    """One direction.

    Of output pixel i: near, far are indices into the square, share is the weight of the second; from_, to: the first
    and the last low-res index it depends on, both ascending; cell: which cell it lies in. Of index s into the square:
    low_near, low_far, low_share likewise into the low-res mask. starts: first pixel of every cell, and the end.
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


def measure_masks(
    low_res: Floats, placement: Placement, thresholds: Floats, min_stability: float, stability: Floats, box: Box
) -> None:
    """Stability of every mask at full size, and the boxes of the stable ones.

    Args:
        low_res: float32 [N, l, l], C-contiguous, finite logits.
        placement: of all masks.
        thresholds: float32 [3], ascending: low, middle, high. Stability is the number of pixels above high over that
            above low; the mask itself is what lies above the middle one.
        min_stability: rounded to float32; 0 or less keeps every mask.
        stability: float32 [N], overwritten: NaN for a mask without pixels above low, 0 for one below min_stability.
        box: int32 [N, 4], overwritten: x0 y0 x1 y1 of the mask, last pixel inclusive; 0 0 0 0 for an empty one and for
            one below min_stability.

    Runs in the calling thread without the GIL: batches of masks are measured side by side by the caller's threads.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: reference.measure_masks is the definition.
    """
    check_measure(low_res, placement, thresholds, stability, box)
    rows, columns = _axes(low_res.shape[1], placement)
    _measure(low_res, rows, columns, thresholds, np.float32(min_stability), stability, box)


def mask_counts(window: Window, side: int, placement: Placement, threshold: float, box: Box) -> Counts:
    """Run lengths of one mask at full size, column-major, starting with background.

    Args:
        window: of the low-res mask, at least `window_of` of the box.
        side: of the whole low-res mask.
        placement: as for measure_masks.
        threshold: rounded to float32; the mask is what lies above.
        box: int32 [4], as measure_masks returned it.

    Returns:
        int64 [R], as mask_stats.box_and_counts.

    Raises:
        ValueError: the window does not hold what the box needs.

    Source: reference.mask_counts is the definition.
    """
    check_window(window, side, placement, box)
    rows, columns = _axes(side, placement)
    edges = np.empty(EDGES_PER_COLUMN * int(box[2] - box[0] + 2), np.int64)
    count = _edges(window.values, window.row, window.column, rows, columns, box, np.float32(threshold), edges)
    if count > edges.size:
        edges = np.empty(count, np.int64)
        _edges(window.values, window.row, window.column, rows, columns, box, np.float32(threshold), edges)
    height, width = placement.size_hw
    return np.diff(edges[:count], prepend=0, append=height * width)


@lru_cache(maxsize=16)
def _axes(side: int, placement: Placement) -> tuple[Axis, Axis]:
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


@contracted_function
def _measure(
    low_res: Floats,
    rows: Axis,
    columns: Axis,
    thresholds: Floats,
    min_stability: np.float32,
    stability: Floats,
    box: Box,
) -> None:
    side = low_res.shape[1]
    outer = np.array([thresholds[0], thresholds[2]])
    middle = thresholds[1:2].copy()
    for index in range(low_res.shape[0]):
        low = low_res[index]
        stability[index] = np.nan
        box[index] = 0
        # Pixels can only be above the lowest threshold near a low-res value that almost is.
        top, bottom, left, right = side, -1, side, -1
        for r in range(side):
            for c in range(side):
                if low[r, c] + (SLACK * abs(low[r, c]) + TINY) > thresholds[0]:
                    top, bottom = min(top, r), max(bottom, r)
                    left, right = min(left, c), max(right, c)
        y0, y1 = _reach(rows, top, bottom)
        x0, x1 = _reach(columns, left, right)
        if y0 < y1 and x0 < x1:
            part = (y0, y1, x0, x1)
            scratch = _scratch(rows, columns, part)
            found = np.zeros(8, np.int64)
            stability[index] = _stability(low, rows, columns, part, outer, min_stability, scratch)
            if min_stability <= 0 or stability[index] >= min_stability:
                _outline(low, 0, 0, rows, columns, part, middle, scratch, np.empty(0, np.int64), found)
                for corner in range(4):
                    box[index, corner] = found[corner]


@contracted_function
def _edges(
    low: Floats, row: int, column: int, rows: Axis, columns: Axis, box: Box, threshold: np.float32, edges: Counts
) -> int:
    thresholds = np.full(1, threshold, np.float32)
    found = np.zeros(8, np.int64)
    part = (int(box[1]), int(box[3]) + 1, int(box[0]), int(box[2]) + 1)
    _outline(low, row, column, rows, columns, part, thresholds, _scratch(rows, columns, part), edges, found)
    return int(found[4])


@kernel
def _reach(axis: Axis, first: int, last: int) -> tuple[int, int]:
    """Output pixels, stop exclusive, that depend on any low-res index from first to last."""
    start, stop = 0, axis.from_.size
    while start < stop and axis.to[start] < first:
        start += 1
    while stop > start and axis.from_[stop - 1] > last:
        stop -= 1
    return start, stop


@kernel
def _scratch(rows: Axis, columns: Axis, part: Part) -> Scratch:
    """Room for one cell of columns; see Scratch."""
    y0, y1, x0, x1 = part
    widest, squares = 1, 1
    for cell in range(columns.cell[x0], columns.cell[x1 - 1] + 1):
        start, stop = columns.starts[cell], columns.starts[cell + 1]
        widest, squares = max(widest, stop - start), max(squares, columns.far[stop - 1] - columns.near[start] + 1)
    low_rows, square_rows = rows.to[y1 - 1] - rows.from_[y0] + 1, rows.far[y1 - 1] - rows.near[y0] + 1
    return (
        np.empty((2, low_rows), np.float32),
        np.empty((low_rows, squares), np.float32),
        np.empty(squares, np.float32),
        np.empty((square_rows, widest), np.float32),
        np.empty((y1 - y0, widest), np.float32),
    )


@kernel
def _decided(low: np.float32, high: np.float32, threshold: np.float32) -> int:
    """Whether every value between low and high is above (1), not above (0), or neither is sure (MIXED)."""
    slack = SLACK * max(abs(low), abs(high)) + TINY
    return 1 if low - slack > threshold else 0 if high + slack <= threshold else MIXED


@kernel
def _judge(
    low: Floats,
    row: int,
    column: int,
    rows: Axis,
    columns: Axis,
    part: Part,
    cell: int,
    thresholds: Floats,
    extremes: Floats,
    codes: Codes,
) -> None:
    """codes[t, k] becomes _decided of the k-th cell of rows in one cell of columns, for every threshold."""
    y0, y1, _, _ = part
    first_row = rows.from_[y0]
    smallest, largest = extremes[0], extremes[1]
    start = columns.starts[cell]
    c0, c1 = columns.from_[start] - column, columns.to[start] - column
    for r in range(first_row, rows.to[y1 - 1] + 1):
        lowest = highest = low[r - row, c0]
        for c in range(c0 + 1, c1 + 1):
            lowest, highest = min(lowest, low[r - row, c]), max(highest, low[r - row, c])
        smallest[r - first_row], largest[r - first_row] = lowest, highest
    first_cell = rows.cell[y0]
    for k in range(first_cell, rows.cell[y1 - 1] + 1):
        y = rows.starts[k]
        r0, r1 = rows.from_[y] - first_row, rows.to[y] - first_row
        lowest, highest = smallest[r0], largest[r0]
        for r in range(r0 + 1, r1 + 1):
            lowest, highest = min(lowest, smallest[r]), max(highest, largest[r])
        for t in range(thresholds.size):
            codes[t, k - first_cell] = _decided(lowest, highest, thresholds[t])


@contracted_function
def _stability(
    low: Floats,
    rows: Axis,
    columns: Axis,
    part: Part,
    thresholds: Floats,
    min_stability: np.float32,
    scratch: Scratch,
) -> np.float32:
    """Pixels above the second threshold over those above the first; NaN for 0 / 0, 0 below min_stability."""
    y0, y1, x0, x1 = part
    first_cell, last_cell = columns.cell[x0], columns.cell[x1 - 1]
    first_rows, row_cells = rows.cell[y0], rows.cell[y1 - 1] - rows.cell[y0] + 1
    codes = np.empty((last_cell - first_cell + 1, 2, row_cells), np.int8)
    sure, possible = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for cell in range(first_cell, last_cell + 1):
        own = codes[cell - first_cell]
        _judge(low, 0, 0, rows, columns, part, cell, thresholds, scratch[0], own)
        width = columns.starts[cell + 1] - columns.starts[cell]
        for k in range(row_cells):
            area = width * (rows.starts[first_rows + k + 1] - rows.starts[first_rows + k])
            for t in range(2):
                sure[t] += area * (own[t, k] == 1)
                possible[t] += area * (own[t, k] == MIXED)
    # The ratio can only fall as more pixels turn out to be above the first threshold alone.
    if min_stability > 0 and (sure[1] + possible[1]) < (min_stability - 1e-6) * sure[0]:
        return np.float32(0)
    tile = scratch[4]
    for cell in range(first_cell, last_cell + 1):
        own = codes[cell - first_cell]
        x, stop = columns.starts[cell], columns.starts[cell + 1]
        k = 0
        while k < row_cells:
            if own[0, k] != MIXED and own[1, k] != MIXED:
                k += 1
                continue
            first = k
            while k < row_cells and (own[0, k] == MIXED or own[1, k] == MIXED):
                k += 1
            y, below = rows.starts[first_rows + first], rows.starts[first_rows + k]
            _interpolate(low, 0, 0, rows, columns, (y, below, x, stop), y0, scratch)
            for mixed in range(first, k):
                top, end = rows.starts[first_rows + mixed] - y0, rows.starts[first_rows + mixed + 1] - y0
                for t in range(2):
                    if own[t, mixed] == MIXED:
                        sure[t] += _count_above(tile[top:end, : stop - x], thresholds[t])
    if sure[0] == 0:
        return np.float32(np.nan)
    ratio = np.float32(sure[1]) / np.float32(sure[0])
    return ratio if min_stability <= 0 or ratio >= min_stability else np.float32(0)


@contracted_function
def _outline(
    low: Floats,
    row: int,
    column: int,
    rows: Axis,
    columns: Axis,
    part: Part,
    thresholds: Floats,
    scratch: Scratch,
    edges: Counts,
    found: Counts,
) -> None:
    """Follow one threshold through the output pixels y0 to y1, x0 to x1; all others are background.

    low: the low-res values from (row, column) on. edges: gets the column-major indices where foreground begins or
    ends, if it has room. found: [0:4] box, [4] number of edges; starts as zeros.
    """
    y0, y1, x0, x1 = part
    height, threshold, tile = rows.near.size, thresholds[0], scratch[4]
    row_cells = rows.cell[y1 - 1] - rows.cell[y0] + 1
    codes = np.empty((1, row_cells), np.int8)
    left, top, right, bottom = x1, y1, -1, -1
    inside = False
    for cell in range(columns.cell[x0], columns.cell[x1 - 1] + 1):
        x, stop = max(x0, columns.starts[cell]), min(x1, columns.starts[cell + 1])
        _judge(low, row, column, rows, columns, part, cell, thresholds, scratch[0], codes)
        k = 0
        while k < row_cells:
            first = k
            while k < row_cells and codes[0, k] == MIXED:
                k += 1
            if k > first:
                y, below = _span(rows, part, first, k)
                _interpolate(low, row, column, rows, columns, (y, below, x, stop), y0, scratch)
            k = max(k, first + 1)
        for at in range(x, stop):
            if inside and y0 > 0:
                inside = False
                found[4] = _edge(edges, found[4], at * height)
            k = 0
            while k < row_cells:
                first, code = k, codes[0, k]
                while k < row_cells and codes[0, k] == code:
                    k += 1
                y, below = _span(rows, part, first, k)
                if code == MIXED:
                    for i in range(y, below):
                        pixel = tile[i - y0, at - x] > threshold
                        if pixel != inside:
                            inside = pixel
                            found[4] = _edge(edges, found[4], at * height + i)
                        if pixel:
                            top, bottom = min(top, i), max(bottom, i)
                            left, right = min(left, at), at
                else:
                    if (code == 1) != inside:
                        inside = code == 1
                        found[4] = _edge(edges, found[4], at * height + y)
                    if inside:
                        top, bottom = min(top, y), max(bottom, below - 1)
                        left, right = min(left, at), at
            if inside and y1 < height:
                inside = False
                found[4] = _edge(edges, found[4], at * height + y1)
    if inside and x1 < columns.near.size:
        found[4] = _edge(edges, found[4], x1 * height)
    if right >= 0:
        found[0], found[1], found[2], found[3] = left, top, right, bottom


@kernel
def _span(rows: Axis, part: Part, first: int, stop: int) -> tuple[int, int]:
    """Output rows of the cells first to stop, counted from the part's first."""
    cell = rows.cell[part[0]]
    return max(part[0], rows.starts[cell + first]), min(part[1], rows.starts[cell + stop])


@kernel
def _edge(edges: Counts, count: int, place: int) -> int:
    if count < edges.size:
        edges[count] = place
    return count + 1


@kernel
def _count_above(values: Floats, threshold: np.float32) -> int:
    count = 0
    for y in range(values.shape[0]):
        in_row = 0
        for x in range(values.shape[1]):
            in_row += values[y, x] > threshold
        count += in_row
    return count


@contracted_function
def _interpolate(
    low: Floats, row: int, column: int, rows: Axis, columns: Axis, part: Part, top: int, scratch: Scratch
) -> None:
    """The tile's row y - top becomes the pixels y, x0 to x1: low-res columns, square rows, output columns, then rows.

    Each step is taken for whole lines of a few pixels, so that it runs on vectors.
    """
    y0, y1, x0, x1 = part
    _, wide, square, lines, tile = scratch
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
