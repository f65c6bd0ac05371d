"""Voting in Numba. Runs are column-major, so sums down the columns answer for runs of any length.

It runs on one thread: all of it takes a few milliseconds at 1080p, and waking a second thread can take longer.
"""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats, Indices
from maskrt.kernels.jit import kernel
from maskrt.kernels.voting.reference import SCALE, check_paint, check_votes
from maskrt.kernels.voting.types import Runs

Sums = NDArray[np.int64]

BLOCK = 16  # rows between two kept sums: a table for every row costs more to write than its look-ups save


def count_votes(ballots: Floats, runs: Runs, out: NDArray[np.float64]) -> None:
    """Sum the ballots of every class under every mask, in fixed point: the work per run does not depend on its length.

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
    above = np.empty((classes, (height + BLOCK - 1) // BLOCK, width), np.int64)
    columns = np.zeros((classes, width + 1), np.int64)
    _sum_blocks(ballots, above, columns)
    np.cumsum(columns, axis=1, out=columns)
    _sum_runs(ballots, above, columns, runs.counts, runs.offsets, out)


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
    _paint_runs(runs.counts, runs.offsets, classes, order, columns.reshape(-1))
    out[:] = columns.T


@kernel
def _sum_blocks(ballots: Floats, above: Sums, columns: Sums) -> None:
    """Set above[c, b, x] to the sum of rows 0 to b * BLOCK - 1 of column x, columns[c, x + 1] to that of all rows."""
    classes, height, width = ballots.shape
    total, block = np.empty(width, np.int64), np.empty(width, np.int32)
    for c in range(classes):
        total[:] = 0
        for b in range(above.shape[1]):
            block[:] = 0
            for y in range(b * BLOCK, min(b * BLOCK + BLOCK, height)):
                line = ballots[c, y]
                for x in range(line.size):
                    block[x] += np.int32(np.rint(line[x] * SCALE))
            above[c, b] = total
            total += block
        columns[c, 1:] = total


@kernel
def _sum_runs(
    ballots: Floats,
    above: Sums,
    columns: Sums,
    counts: Indices,
    offsets: Indices,
    out: NDArray[np.float64],
) -> None:
    """Add to each mask the sum of all pixels before the end of its foreground runs, less that before their starts."""
    classes, height, _ = ballots.shape
    votes = np.empty(classes, np.int64)
    for segment in range(out.shape[0]):
        votes[:] = 0
        column, row = 0, 0  # of the first pixel after the run; past the last column at the image's end
        first, sign = offsets[segment], -1
        for run in range(first, offsets[segment + 1] - (offsets[segment + 1] - first) % 2):
            row += counts[run]
            if row >= height:
                column, row = column + row // height, row % height
            block = row // BLOCK
            for c in range(classes):
                total = columns[c, column]
                if row:
                    total += above[c, block, column]
                    for y in range(block * BLOCK, row):
                        total += np.int64(np.rint(ballots[c, y, column] * SCALE))
                votes[c] += sign * total
            sign = -sign
        for c in range(classes):
            out[segment, c] = votes[c] / SCALE


@kernel
def _paint_runs(
    counts: Indices,
    offsets: Indices,
    classes: NDArray[np.uint8],
    order: Indices,
    out: NDArray[np.uint8],
) -> None:
    for segment in order:
        pixel = 0
        for run in range(offsets[segment] + 1, offsets[segment + 1], 2):
            start = pixel + counts[run - 1]
            pixel = start + counts[run]
            out[start:pixel] = classes[segment]
