"""Voting in Numba. Runs are column-major, so sums up to every pixel of a column answer for runs of any length."""

import numpy as np
from numba import prange
from numpy.typing import NDArray

from maskrt.kernels.jit import kernel, parallel_kernel
from maskrt.kernels.voting.reference import SCALE, Indices, Runs, check_paint, check_votes

Floats = NDArray[np.float32]
Sums = NDArray[np.int64]

TILE = 16  # columns at a time: 16 float32 are a cache line, and as many streams are written


def count_votes(ballots: Floats, runs: Runs, out: NDArray[np.float64]) -> None:
    """Sum the ballots of every class under every mask, in fixed point: two look-ups per run, whatever its length.

    Args:
        ballots: float32 [C, H, W], C-contiguous, 0 to 1; what each pixel gives to each class.
        runs: of N masks of size [H, W].
        out: float64 [N, C], overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or a run leaves the image.

    Source: reference.count_votes is the definition; integers are exact, so the bits are the same on any machine.
    """
    check_votes(ballots, runs, out)
    classes, height, width = ballots.shape
    before = np.empty((classes, width, height), np.int64)
    columns = np.zeros((classes, width + 1), np.int64)
    _sum_columns(ballots, before, columns)
    np.cumsum(columns, axis=1, out=columns)
    _sum_runs(before, columns, runs.starts, runs.stops, runs.offsets, out)


def paint(runs: Runs, classes: NDArray[np.uint8], order: Indices, out: NDArray[np.uint8]) -> None:
    """Paint masks in their classes, one over the other.

    Args:
        runs: of N masks of size [H, W].
        classes: uint8 [N].
        order: int64 [N], indices of masks; the last one painted wins a pixel.
        out: uint8 [H, W], C-contiguous; pixels under no mask keep their value.

    Raises:
        ValueError: a shape or dtype differs from the above, or a run or an index is out of range.

    Source: reference.paint is the definition.
    """
    check_paint(runs, classes, order, out)
    columns = np.ascontiguousarray(out.T)
    _paint_runs(runs.starts, runs.stops, runs.offsets, classes, order, columns.reshape(-1))
    out[:] = columns.T


@parallel_kernel
def _sum_columns(ballots: Floats, before: Sums, columns: Sums) -> None:
    """before[c, x, y] becomes the sum of rows 0 to y - 1 of column x, columns[c, x + 1] that of all rows."""
    classes, height, width = ballots.shape
    for tile in prange((width + TILE - 1) // TILE):
        left, right = tile * TILE, min(tile * TILE + TILE, width)
        total = np.empty(TILE, np.int64)
        for c in range(classes):
            total[:] = 0
            for y in range(height):
                for x in range(left, right):
                    before[c, x, y] = total[x - left]
                    total[x - left] += np.int64(np.rint(ballots[c, y, x] * SCALE))
            for x in range(left, right):
                columns[c, x + 1] = total[x - left]


@parallel_kernel
def _sum_runs(
    before: Sums, columns: Sums, starts: Indices, stops: Indices, offsets: Indices, out: NDArray[np.float64]
) -> None:
    classes, _, height = before.shape
    for segment in prange(out.shape[0]):
        for c in range(classes):
            votes = 0
            for run in range(offsets[segment], offsets[segment + 1]):
                votes += _sum_to(before[c], columns[c], stops[run], height)
                votes -= _sum_to(before[c], columns[c], starts[run], height)
            out[segment, c] = votes / SCALE


@kernel
def _sum_to(before: Sums, columns: Sums, pixel: int, height: int) -> int:
    """Of all pixels before this one, in column order; `pixel` may be one past the last."""
    column, row = pixel // height, pixel % height
    total = columns[column]
    if row:
        total += before[column, row]
    return int(total)


@kernel
def _paint_runs(
    starts: Indices,
    stops: Indices,
    offsets: Indices,
    classes: NDArray[np.uint8],
    order: Indices,
    out: NDArray[np.uint8],
) -> None:
    for segment in order:
        for run in range(offsets[segment], offsets[segment + 1]):
            out[starts[run] : stops[run]] = classes[segment]
