"""Masks measured straight from low-res logits, in Numba.

Every pixel is a chain of linear interpolations, so it lies between the smallest and the largest of the few low-res
values it is made from. Where those are all on one side of every threshold, whole blocks of pixels are counted without
looking at one. The other pixels, a band along the outline, are interpolated in the order and with the roundings of the
dense two-step resize: the answer is the same bit for bit, and no array of the image's size is made.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from maskrt.kernels.jit import contracted_function, contracted_kernel, kernel
from maskrt.kernels.low_res.reference import Box, Floats, Placement, Window, check_measure, check_window
from maskrt.kernels.resample.cpu import taps

Indices = NDArray[np.int32]
Counts = NDArray[np.int64]

# A computed pixel can leave the range of its low-res values by a few roundings of 2**-24; this is a hundred of them.
SLACK = np.float32(6e-6)
TINY = np.float32(1e-37)  # products below the smallest normal number round by more
ONE = np.float32(1)
MIXED = -1
EDGES_PER_COLUMN = 6  # room for the first try; two are usual


class Axis(NamedTuple):
    """One direction. Of output pixel i: near, far are indices into the square, share is the weight of the second.

    Of index s into the square: low_near, low_far, low_share into the low-res mask. from_, to: of output pixel i, the
    first and the last low-res index it depends on; both ascend.
    """

    near: Indices
    far: Indices
    share: Floats
    low_near: Indices
    low_far: Indices
    low_share: Floats
    from_: Indices
    to: Indices


def measure_masks(low_res: Floats, placement: Placement, thresholds: Floats, above: Counts, box: Box) -> None:
    """Areas and boxes at full size.

    Args:
        low_res: float32 [N, l, l], C-contiguous, finite logits.
        placement: of all masks.
        thresholds: float32 [3], ascending; the mask itself is what lies above the middle one.
        above: int64 [N, 3], overwritten: pixels above each threshold.
        box: int32 [N, 4], overwritten: x0 y0 x1 y1 of the mask, last pixel inclusive; 0 0 0 0 for an empty one.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: reference.measure_masks is the definition.
    """
    check_measure(low_res, placement, thresholds, above, box)
    rows, columns = _axes(low_res.shape[1], placement)
    _measure(low_res, rows, columns, thresholds, above, box)


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
    return Axis(near, far, share, low_near, low_far, low_share, low_near[near], low_far[far])


@kernel
def _scratch(square: int, side: int) -> tuple[Floats, Floats]:
    """Room for one column: values at the rows of the square, and four columns of the low-res mask."""
    return np.empty(square, np.float32), np.empty((4, side), np.float32)


@contracted_kernel
def _measure(low_res: Floats, rows: Axis, columns: Axis, thresholds: Floats, above: Counts, box: Box) -> None:
    no_edges = np.empty(0, np.int64)
    side = low_res.shape[1]
    for index in prange(low_res.shape[0]):
        low = low_res[index]
        found = np.zeros(8, np.int64)
        # Pixels can only be above the lowest threshold near a low-res value that almost is.
        top, bottom, left, right = side, -1, side, -1
        for r in range(side):
            for c in range(side):
                if low[r, c] + (SLACK * abs(low[r, c]) + TINY) > thresholds[0]:
                    top, bottom = min(top, r), max(bottom, r)
                    left, right = min(left, c), max(right, c)
        if bottom >= 0:
            y0, y1 = _reach(rows, top, bottom)
            x0, x1 = _reach(columns, left, right)
            if y0 < y1 and x0 < x1:
                scratch = _scratch(rows.low_near.size, side)
                _scan(low, 0, 0, rows, columns, (y0, y1, x0, x1), thresholds, scratch, no_edges, found)
        for t in range(3):
            above[index, t] = found[t]
        for corner in range(4):
            box[index, corner] = found[3 + corner]


@contracted_function
def _edges(
    low: Floats, row: int, column: int, rows: Axis, columns: Axis, box: Box, threshold: np.float32, edges: Counts
) -> int:
    thresholds = np.full(3, threshold, np.float32)
    found = np.zeros(8, np.int64)
    scratch = _scratch(rows.low_near.size, low.shape[0])
    _scan(low, row, column, rows, columns, (box[1], box[3] + 1, box[0], box[2] + 1), thresholds, scratch, edges, found)
    return found[7]


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
def _decided(low: np.float32, high: np.float32, thresholds: Floats) -> int:
    """How many thresholds every value between low and high is above, or MIXED."""
    slack = SLACK * max(abs(low), abs(high)) + TINY
    below, above = 0, 0
    for t in range(3):
        above += low - slack > thresholds[t]
        below += high + slack <= thresholds[t]
    return above if above + below == 3 else MIXED


@contracted_function
def _scan(
    low: Floats,
    row: int,
    column: int,
    rows: Axis,
    columns: Axis,
    part: tuple[int, int, int, int],
    thresholds: Floats,
    scratch: tuple[Floats, Floats],
    edges: Counts,
    found: Counts,
) -> None:
    """Measure the output pixels y0 to y1, x0 to x1; all others are background.

    low: the low-res values from (row, column) on. edges: gets the column-major indices where foreground begins or
    ends, if it has room. found: [0:3] pixels above the thresholds, [3:7] box, [7] number of edges; starts as zeros.
    """
    y0, y1, x0, x1 = part
    height = rows.near.size
    column_values, lines = scratch
    smallest, largest = lines[0], lines[1]
    segment_stop = np.empty(y1 - y0, np.int32)
    segment_code = np.empty(y1 - y0, np.int8)
    left, top, right, bottom = x1, y1, -1, -1
    inside = False
    x = x0
    while x < x1:
        # Columns that begin at the same low-res column are judged together.
        stop, c0, c1 = x + 1, columns.from_[x] - column, columns.to[x] - column
        while stop < x1 and columns.from_[stop] - column == c0:
            c1 = columns.to[stop] - column
            stop += 1
        for r in range(rows.from_[y0] - row, rows.to[y1 - 1] - row + 1):
            lowest = highest = low[r, c0]
            for c in range(c0 + 1, c1 + 1):
                lowest, highest = min(lowest, low[r, c]), max(highest, low[r, c])
            smallest[r], largest[r] = lowest, highest
        segments = 0
        y = y0
        while y < y1:
            below, r0, r1 = y + 1, rows.from_[y] - row, rows.to[y] - row
            while below < y1 and rows.from_[below] - row == r0:
                r1 = rows.to[below] - row
                below += 1
            lowest, highest = smallest[r0], largest[r0]
            for r in range(r0 + 1, r1 + 1):
                lowest, highest = min(lowest, smallest[r]), max(highest, largest[r])
            code = _decided(lowest, highest, thresholds)
            if segments == 0 or segment_code[segments - 1] != code:
                segments += 1
            segment_stop[segments - 1], segment_code[segments - 1] = below, code
            y = below
        if segments == 1 and segment_code[0] == 0 and not inside:
            x = stop
            continue
        for at in range(x, stop):
            if inside and y0 > 0:
                inside = False
                found[7] = _edge(edges, found[7], at * height)
            y = y0
            for segment in range(segments):
                below, code = segment_stop[segment], segment_code[segment]
                if code == MIXED:
                    _interpolate(low, row, column, rows, columns, at, y, below, lines, column_values)
                    for i in range(y, below):
                        share = rows.share[i]
                        value = column_values[rows.near[i]] * (ONE - share) + column_values[rows.far[i]] * share
                        found[0] += value > thresholds[0]
                        found[2] += value > thresholds[2]
                        pixel = value > thresholds[1]
                        found[1] += pixel
                        if pixel:
                            left, right = min(left, at), at
                            top, bottom = min(top, i), max(bottom, i)
                        if pixel != inside:
                            inside = pixel
                            found[7] = _edge(edges, found[7], at * height + i)
                else:
                    for t in range(code):
                        found[t] += below - y
                    pixel = code >= 2
                    if pixel:
                        left, right = min(left, at), at
                        top, bottom = min(top, y), max(bottom, below - 1)
                    if pixel != inside:
                        inside = pixel
                        found[7] = _edge(edges, found[7], at * height + y)
                y = below
            if inside and y1 < height:
                inside = False
                found[7] = _edge(edges, found[7], at * height + y1)
        x = stop
    if inside and x1 < columns.near.size:
        found[7] = _edge(edges, found[7], x1 * height)
    if right >= 0:
        found[3], found[4], found[5], found[6] = left, top, right, bottom


@kernel
def _edge(edges: Counts, count: int, place: int) -> int:
    if count < edges.size:
        edges[count] = place
    return count + 1


@contracted_function
def _interpolate(
    low: Floats,
    row: int,
    column: int,
    rows: Axis,
    columns: Axis,
    at: int,
    y0: int,
    y1: int,
    lines: Floats,
    out: Floats,
) -> None:
    """out[s] becomes the value at row s of the square and output column `at`, for the rows that y0 to y1 need."""
    near, far, share = columns.near[at], columns.far[at], columns.share[at]
    a0, a1, a_share = columns.low_near[near] - column, columns.low_far[near] - column, columns.low_share[near]
    b0, b1, b_share = columns.low_near[far] - column, columns.low_far[far] - column, columns.low_share[far]
    a, b = lines[2], lines[3]
    for r in range(rows.from_[y0] - row, rows.to[y1 - 1] - row + 1):
        a[r] = low[r, a0] * (ONE - a_share) + low[r, a1] * a_share
        b[r] = low[r, b0] * (ONE - b_share) + low[r, b1] * b_share
    for s in range(rows.near[y0], rows.far[y1 - 1] + 1):
        r0, r1, r_share = rows.low_near[s] - row, rows.low_far[s] - row, rows.low_share[s]
        first = a[r0] * (ONE - r_share) + a[r1] * r_share
        second = b[r0] * (ONE - r_share) + b[r1] * r_share
        out[s] = first * (ONE - share) + second * share
