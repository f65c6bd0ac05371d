"""Voting in Numba. Runs are column-major: one transposition up front makes every run a contiguous stretch."""

import numpy as np
from numba import prange
from numpy.typing import NDArray

from maskrt.kernels.jit import kernel, parallel_kernel
from maskrt.kernels.voting.reference import Indices, Runs, check_paint, check_votes

Floats = NDArray[np.float32]

TILE = 32  # 32 x 32 float32 are 4 KB: source and destination of a tile both stay in the L1 cache


def count_votes(ballots: Floats, runs: Runs, out: NDArray[np.float64]) -> None:
    """Sum the ballots of every class under every mask.

    The order of summation is that of the runs, whatever the number of threads: the same input gives the same bits.

    Args:
        ballots: float32 [C, H, W], C-contiguous; what each pixel gives to each class.
        runs: of N masks of size [H, W].
        out: float64 [N, C], overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or a run leaves the image.

    Source: reference.count_votes is the definition, up to the rounding of a float64 sum.
    """
    check_votes(ballots, runs, out)
    classes, height, width = ballots.shape
    columns = np.empty((classes, width, height), np.float32)
    _transpose(ballots, columns)
    _sum_runs(columns.reshape(classes, width * height), runs.starts, runs.stops, runs.offsets, out)


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
def _transpose(values: Floats, out: Floats) -> None:
    """[C, H, W] to [C, W, H], tile by tile: a plain strided copy misses the cache at every pixel."""
    classes, height, width = values.shape
    for tile in prange((height + TILE - 1) // TILE):
        top = tile * TILE
        for c in range(classes):
            for left in range(0, width, TILE):
                for x in range(left, min(left + TILE, width)):
                    for y in range(top, min(top + TILE, height)):
                        out[c, x, y] = values[c, y, x]


@parallel_kernel
def _sum_runs(ballots: Floats, starts: Indices, stops: Indices, offsets: Indices, out: NDArray[np.float64]) -> None:
    for segment in prange(out.shape[0]):
        for c in range(out.shape[1]):
            votes = 0.0
            for run in range(offsets[segment], offsets[segment + 1]):
                for pixel in range(starts[run], stops[run]):
                    votes += ballots[c, pixel]
            out[segment, c] = votes


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
