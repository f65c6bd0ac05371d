"""Masks measured straight from low-res logits, in Numba.

Every pixel is a chain of linear interpolations, so it lies between the smallest and the largest of the few low-res
values that it is made from. A cell holds the pixels that are made from the same values. If these values are all on one
side of a threshold, the cell is counted without computing a pixel. The other pixels, a band along the outline, are
interpolated in the order and with the roundings of the dense two-step resize. So the answer is the same bit for bit,
and no array of the image's size is made. The sure cells alone often show that a mask is unstable, and only stable masks
get a box.
"""

import numpy as np

from maskrt.kernels.arrays import Floats
from maskrt.kernels.jit import contracted_function, kernel
from maskrt.kernels.low_res.cells import (
    MIXED,
    SLACK,
    TINY,
    Axis,
    Codes,
    Counts,
    Part,
    Scratch,
    axes,
    interpolate,
    judge,
    reach,
    scratch_for,
)
from maskrt.kernels.low_res.reference import check_measure, check_window
from maskrt.kernels.low_res.types import Box, Placement, Window

EDGES_PER_COLUMN = 6  # room for the first try; two are usual


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

    It runs in the calling thread without the GIL: the caller's threads measure batches of masks side by side.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: reference.measure_masks is the definition.
    """
    check_measure(low_res, placement, thresholds, stability, box)
    rows, columns = axes(low_res.shape[1], placement)
    _measure(low_res, rows, columns, thresholds, np.float32(min_stability), stability, box)


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
            codes = judge(low, 0, 0, rows, columns, part, thresholds)
            scratch = scratch_for(rows, columns, part)
            stability[index] = _stability(low, rows, columns, part, codes, thresholds, min_stability, scratch)
            if min_stability <= 0 or stability[index] >= min_stability:
                _box(low, rows, columns, part, codes[1], thresholds[1], scratch, box[index])


@contracted_function
def _stability(
    low: Floats,
    rows: Axis,
    columns: Axis,
    part: Part,
    codes: Codes,
    thresholds: Floats,
    min_stability: np.float32,
    scratch: Scratch,
) -> np.float32:
    """Return the pixels above the last threshold over those above the first: NaN for 0 / 0, 0 below min_stability."""
    y0, _, x0, _ = part
    low_codes, high_codes, low_threshold, high_threshold = codes[0], codes[2], thresholds[0], thresholds[2]
    top_cell, left_cell = rows.cell[y0], columns.cell[x0]
    heights = np.diff(rows.starts[top_cell : top_cell + codes.shape[2] + 1])
    above_low, above_high, open_high = 0, 0, 0
    for cell in range(codes.shape[1]):
        width = columns.starts[left_cell + cell + 1] - columns.starts[left_cell + cell]
        in_low, in_high, in_open = low_codes[cell], high_codes[cell], 0
        sure_low, sure_high = 0, 0
        for k in range(heights.size):
            sure_low += heights[k] * (in_low[k] == 1)
            sure_high += heights[k] * (in_high[k] == 1)
            in_open += heights[k] * (in_high[k] == MIXED)
        above_low += width * sure_low
        above_high += width * sure_high
        open_high += width * in_open
    tile = scratch[3]
    for cell in range(codes.shape[1]):
        # The ratio can only fall as more pixels turn out to be above the first threshold alone.
        if min_stability > 0 and (above_high + open_high) < (min_stability - 1e-6) * above_low:
            return np.float32(0)
        in_low, in_high = low_codes[cell], high_codes[cell]
        x, stop = columns.starts[left_cell + cell], columns.starts[left_cell + cell + 1]
        k = 0
        while k < heights.size:
            if in_low[k] != MIXED and in_high[k] != MIXED:
                k += 1
                continue
            first = k
            while k < heights.size and (in_low[k] == MIXED or in_high[k] == MIXED):
                k += 1
            y, below = rows.starts[top_cell + first], rows.starts[top_cell + k]
            interpolate(low, 0, 0, rows, columns, (y, below, x, stop), y0, scratch)
            for mixed in range(first, k):
                top, end = rows.starts[top_cell + mixed] - y0, rows.starts[top_cell + mixed + 1] - y0
                pixels = tile[top:end, : stop - x]
                if in_low[mixed] == MIXED:
                    above_low += _count_above(pixels, low_threshold)
                if in_high[mixed] == MIXED:
                    above_high += _count_above(pixels, high_threshold)
                    open_high -= pixels.size
    if above_low == 0:
        return np.float32(np.nan)
    ratio = np.float32(above_high) / np.float32(above_low)
    return ratio if min_stability <= 0 or ratio >= min_stability else np.float32(0)


@contracted_function
def _box(
    low: Floats,
    rows: Axis,
    columns: Axis,
    part: Part,
    codes: Codes,
    threshold: np.float32,
    scratch: Scratch,
    box: Box,
) -> None:
    """Set the box, x0 y0 x1 y1, of the pixels above the threshold; leave it where there are none.

    Mixed cells inside the box so far cannot widen it.
    """
    y0, _, x0, _ = part
    top_cell, left_cell, tile, cells = rows.cell[y0], columns.cell[x0], scratch[3], codes.shape[1]
    left, top, right, bottom = columns.near.size, rows.near.size, -1, -1
    for cell in range(codes.shape[0]):
        own, k, last = codes[cell], 0, cells - 1
        while k < cells and own[k] != 1:
            k += 1
        while last > k and own[last] != 1:
            last -= 1
        if k < cells:
            left, right = min(left, columns.starts[left_cell + cell]), columns.starts[left_cell + cell + 1] - 1
            top, bottom = min(top, rows.starts[top_cell + k]), max(bottom, rows.starts[top_cell + last + 1] - 1)
    for cell in range(codes.shape[0]):
        own, x, stop = codes[cell], columns.starts[left_cell + cell], columns.starts[left_cell + cell + 1]
        k = 0
        while k < cells:
            y, below = rows.starts[top_cell + k], rows.starts[top_cell + k + 1]
            if left <= x and stop - 1 <= right and top <= y and y < bottom:
                k = rows.cell[bottom] - top_cell  # the first that may reach below the box
                y, below = rows.starts[top_cell + k], rows.starts[top_cell + k + 1]
            if own[k] == MIXED:
                interpolate(low, 0, 0, rows, columns, (y, below, x, stop), y0, scratch)
                for i in range(y, below):
                    for at in range(x, stop):
                        if tile[i - y0, at - x] > threshold:
                            left, top, right, bottom = min(left, at), min(top, i), max(right, at), max(bottom, i)
            k += 1
    if right >= 0:
        box[0], box[1], box[2], box[3] = left, top, right, bottom


@contracted_function
def _edges(
    low: Floats, row: int, column: int, rows: Axis, columns: Axis, box: Box, threshold: np.float32, edges: Counts
) -> int:
    """Follow the threshold through the pixels of the box; all others are background.

    low: the low-res values from (row, column) on. edges: gets the column-major indices where foreground begins or
    ends, if it has room. The result is how many there are.
    """
    y0, y1, x0, x1 = part = (int(box[1]), int(box[3]) + 1, int(box[0]), int(box[2]) + 1)
    codes = judge(low, row, column, rows, columns, part, np.full(1, threshold, np.float32))[0]
    scratch = scratch_for(rows, columns, part)
    height, tile, row_cells = rows.near.size, scratch[3], codes.shape[1]
    count, inside = 0, False
    for cell in range(codes.shape[0]):
        own, column_cell = codes[cell], columns.cell[x0] + cell
        x, stop = max(x0, columns.starts[column_cell]), min(x1, columns.starts[column_cell + 1])
        k = 0
        while k < row_cells:
            first = k
            while k < row_cells and own[k] == MIXED:
                k += 1
            if k > first:
                y, below = _span(rows, part, first, k)
                interpolate(low, row, column, rows, columns, (y, below, x, stop), y0, scratch)
            k = max(k, first + 1)
        for at in range(x, stop):
            if inside and y0 > 0:
                inside = False
                count = _edge(edges, count, at * height)
            k = 0
            while k < row_cells:
                first, code = k, own[k]
                while k < row_cells and own[k] == code:
                    k += 1
                y, below = _span(rows, part, first, k)
                if code == MIXED:
                    for i in range(y, below):
                        pixel = tile[i - y0, at - x] > threshold
                        if pixel != inside:
                            inside = pixel
                            count = _edge(edges, count, at * height + i)
                elif (code == 1) != inside:
                    inside = code == 1
                    count = _edge(edges, count, at * height + y)
            if inside and y1 < height:
                inside = False
                count = _edge(edges, count, at * height + y1)
    if inside and x1 < columns.near.size:
        count = _edge(edges, count, x1 * height)
    return count


@kernel
def _span(rows: Axis, part: Part, first: int, stop: int) -> tuple[int, int]:
    """Return the output rows of the cells first to stop, counted from the part's first."""
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
