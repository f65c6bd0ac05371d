"""Voting on a GPU: sums down the columns as on the CPU, then every run on its own."""

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from maskrt.kernels import device
from maskrt.kernels.arrays import Floats, Indices
from maskrt.kernels.voting.reference import SCALE, check_paint, check_votes
from maskrt.kernels.voting.types import Runs

Sums = NDArray[np.int64]

BLOCK = 16  # rows between two kept sums, as on the CPU
PIECE = 256  # pixels that one thread paints: a run may be the whole picture


def count_votes(ballots: Floats, runs: Runs, out: NDArray[np.float64]) -> None:
    """Sum the ballots of every class under every mask, in fixed point: the work per run does not depend on its length.

    Args:
        ballots: float32 [C, H, W], C-contiguous, 0 to 1; what each pixel gives to each class. May be on the device.
        runs: of N masks of size [H, W].
        out: float64 [N, C], overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or a run leaves the image.

    Source: reference.count_votes is the definition; sums of integers are exact in any order.
    """
    check_votes(ballots, runs, out)
    classes, height, width = ballots.shape
    on_device = device.to_device(ballots)
    above = device.empty((classes, max(1, -(-height // BLOCK)), width), np.int64)
    columns = device.empty((classes, width + 1), np.int64)
    device.launch(_sum_blocks, classes * width, on_device, above, columns)
    device.launch(_sum_columns, classes, columns)
    starts, stops, masks = _foreground(runs)
    votes = device.full(out.shape, 0, np.int64)
    where = map(device.to_device, (starts, stops, masks))
    device.launch(_sum_runs, starts.size * classes, on_device, above, columns, *where, votes)
    np.divide(device.to_host(votes), np.float64(SCALE), out=out)


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
    turns = np.full(classes.size, -1, np.int32)  # the last one of each mask
    np.maximum.at(turns, order, np.arange(order.size, dtype=np.int32))
    starts, stops, masks = _foreground(runs)
    painted = turns[masks] >= 0
    pieces = _pieces(starts[painted], stops[painted], turns[masks[painted]])
    last = device.full(out.size, -1, np.int32)
    device.launch(_take_turns, pieces[0].size, *map(device.to_device, pieces), last)
    label = device.to_device(out)
    device.launch(_paint, out.size, last, device.to_device(classes[order]), label)
    device.to_host(label, out)


def _foreground(runs: Runs) -> tuple[Indices, Indices, Indices]:
    """Return first pixel, the one behind the last, and mask of every foreground run that is not empty, column-major."""
    masks = np.repeat(np.arange(runs.offsets.size - 1), np.diff(runs.offsets))
    ends = np.cumsum(runs.counts)
    before = np.concatenate([np.zeros(1, np.int64), ends])[runs.offsets[masks]]  # pixels of all masks before
    stops = ends - before
    starts = stops - runs.counts
    wanted = ((np.arange(masks.size) - runs.offsets[masks]) % 2 == 1) & (runs.counts > 0)
    return starts[wanted], stops[wanted], masks[wanted]


def _pieces(starts: Indices, stops: Indices, turns: NDArray[np.int32]) -> tuple[Indices, Indices, NDArray[np.int32]]:
    """Cut runs into pieces of at most PIECE pixels."""
    counts = -(-(stops - starts) // PIECE)
    run = np.repeat(np.arange(counts.size), counts)
    nth = np.arange(run.size) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[run] + nth * PIECE
    return first, np.minimum(first + PIECE, stops[run]), turns[run]


@device.kernel
def _sum_blocks(ballots: Floats, above: Sums, columns: Sums) -> None:
    """Set above[c, b, x] to the sum of rows 0 to b * BLOCK - 1 of column x, columns[c, x + 1] to that of all rows."""
    classes, height, width = ballots.shape
    for task in range(cuda.grid(1), classes * width, cuda.gridsize(1)):
        c, x = task // width, task % width
        total = np.int64(0)
        for y in range(height):
            if y % BLOCK == 0:
                above[c, y // BLOCK, x] = total
            total += np.int64(round(ballots[c, y, x] * SCALE))
        columns[c, x + 1] = total


@device.kernel
def _sum_columns(columns: Sums) -> None:
    for c in range(cuda.grid(1), columns.shape[0], cuda.gridsize(1)):
        total = np.int64(0)
        columns[c, 0] = total
        for x in range(1, columns.shape[1]):
            total += columns[c, x]
            columns[c, x] = total


@device.kernel
def _sum_runs(
    ballots: Floats, above: Sums, columns: Sums, starts: Indices, stops: Indices, masks: Indices, votes: Sums
) -> None:
    classes = ballots.shape[0]
    for task in range(cuda.grid(1), starts.size * classes, cuda.gridsize(1)):
        run, c = task // classes, task % classes
        until = _sum_before(ballots, above, columns, c, stops[run])
        cuda.atomic.add(votes, (masks[run], c), until - _sum_before(ballots, above, columns, c, starts[run]))


@device.function
def _sum_before(ballots: Floats, above: Sums, columns: Sums, c: int, pixel: int) -> np.int64:
    """Sum the ballots of a class over all pixels before one, column-major."""
    height = ballots.shape[1]
    x, y = pixel // height, pixel % height
    total: np.int64 = columns[c, x]
    if y:
        block = y // BLOCK
        total += above[c, block, x]
        for row in range(block * BLOCK, y):
            total += np.int64(round(ballots[c, row, x] * SCALE))
    return total


@device.kernel
def _take_turns(starts: Indices, stops: Indices, turns: NDArray[np.int32], last: NDArray[np.int32]) -> None:
    """Set last[pixel], column-major, to the latest turn that paints it."""
    for piece in range(cuda.grid(1), starts.size, cuda.gridsize(1)):
        for pixel in range(starts[piece], stops[piece]):
            cuda.atomic.max(last, pixel, turns[piece])


@device.kernel
def _paint(last: NDArray[np.int32], colours: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    height, width = out.shape
    for task in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        y, x = task // width, task % width
        turn = last[x * height + y]
        if turn >= 0:
            out[y, x] = colours[turn]
