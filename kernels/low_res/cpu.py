"""Masks measured straight from low-res logits, in Numba.

Every pixel is a chain of linear interpolations, so it lies between the smallest and the largest of the few low-res
values it is made from. Cells of pixels that are made from the same values, all of them on one side of a threshold, are
counted without looking at one. The other pixels, a band along the outline, are interpolated in the order and with the
roundings of the dense two-step resize: the answer is the same bit for bit, and no array of the image's size is made.
Unstable masks often fall by the sure cells alone, and only stable ones get a box.
"""

import numpy as np

from maskrt.kernels.jit import contracted_function, kernel
from maskrt.kernels.low_res.cells import (
    MIXED,
    SLACK,
    TINY,
    Axis,
    Counts,
    Part,
    Scratch,
    axes,
    interpolate,
    judge,
    reach,
    scratch_for,
)
from maskrt.kernels.low_res.reference import Box, Floats, Placement, Window, check_measure, check_window

EDGES_PER_COLUMN = 6  # room for the first try; two are usual


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
    rows, columns = axes(low_res.shape[1], placement)
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
    rows, columns = axes(side, placement)
    edges = np.empty(EDGES_PER_COLUMN * int(box[2] - box[0] + 2), np.int64)
    count = _edges(window.values, window.row, window.column, rows, columns, box, np.float32(threshold), edges)
    if count > edges.size:
        edges = np.empty(count, np.int64)
        _edges(window.values, window.row, window.column, rows, columns, box, np.float32(threshold), edges)
    height, width = placement.size_hw
    return np.diff(edges[:count], prepend=0, append=height * width)


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
        y0, y1 = reach(rows, top, bottom)
        x0, x1 = reach(columns, left, right)
        if y0 < y1 and x0 < x1:
            part = (y0, y1, x0, x1)
            scratch = scratch_for(rows, columns, part)
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
    _outline(low, row, column, rows, columns, part, thresholds, scratch_for(rows, columns, part), edges, found)
    return int(found[4])


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
        judge(low, 0, 0, rows, columns, part, cell, thresholds, scratch[0], own)
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
            interpolate(low, 0, 0, rows, columns, (y, below, x, stop), y0, scratch)
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
        judge(low, row, column, rows, columns, part, cell, thresholds, scratch[0], codes)
        k = 0
        while k < row_cells:
            first = k
            while k < row_cells and codes[0, k] == MIXED:
                k += 1
            if k > first:
                y, below = _span(rows, part, first, k)
                interpolate(low, row, column, rows, columns, (y, below, x, stop), y0, scratch)
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
