"""The definition of voting, over dense masks in plain NumPy."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Indices
from maskrt.kernels.checks import check_array
from maskrt.kernels.voting.types import Runs

# Ballots are counted in multiples of 2**-24, the finest step of a float32 between 0.5 and 1. Sums of up to 2**29 such
# ballots are exact in float64, so votes do not depend on the order of summation.
SCALE = np.float32(1 << 24)


def runs_of(counts: Sequence[Sequence[int]]) -> Runs:
    """Join the run lengths of N masks, one sequence each, in one array."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum([len(mask) for mask in counts], out=offsets[1:])
    return Runs(np.fromiter(chain.from_iterable(counts), np.int64, offsets[-1]), offsets)


def count_votes(ballots: NDArray[np.float32], runs: Runs, out: NDArray[np.float64]) -> None:
    """Sum the ballots of every class under every mask, each ballot rounded to a multiple of 2**-24.

    Args:
        ballots: float32 [C, H, W], C-contiguous, 0 to 1; what each pixel gives to each class.
        runs: of N masks of size [H, W].
        out: float64 [N, C], overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or a run leaves the image.
    """
    check_votes(ballots, runs, out)
    height, width = ballots.shape[1:]
    for mask, votes in zip(_dense(runs, height, width), out, strict=True):
        votes[:] = np.rint(ballots[:, mask] * SCALE).sum(axis=1, dtype=np.float64) / SCALE


def paint(runs: Runs, classes: NDArray[np.uint8], order: Indices, out: NDArray[np.uint8]) -> None:
    """Paint masks in their classes, one over the other.

    Args:
        runs: of N masks of size [H, W].
        classes: uint8 [N].
        order: int64 [N], indices of masks; the last one painted wins a pixel.
        out: uint8 [H, W], C-contiguous; pixels under no mask keep their value.

    Raises:
        ValueError: a shape or dtype differs from the above, or a run or an index is out of range.
    """
    check_paint(runs, classes, order, out)
    masks = _dense(runs, *out.shape)
    for segment in order:
        out[masks[segment]] = classes[segment]


def check_votes(ballots: NDArray[np.float32], runs: Runs, out: NDArray[np.float64]) -> None:
    """Raise ValueError unless the arguments are as `count_votes` wants them."""
    check_array("ballots", ballots, np.float32, (None, None, None))
    check_array("out", out, np.float64, (runs.offsets.size - 1, ballots.shape[0]))
    _check_runs(runs, ballots.shape[1] * ballots.shape[2])


def check_paint(runs: Runs, classes: NDArray[np.uint8], order: Indices, out: NDArray[np.uint8]) -> None:
    """Raise ValueError unless the arguments are as `paint` wants them."""
    segments = runs.offsets.size - 1
    check_array("classes", classes, np.uint8, (segments,))
    check_array("order", order, np.int64, (None,))
    check_array("out", out, np.uint8, (None, None))
    if order.size and not (order.min() >= 0 and order.max() < segments):
        raise ValueError(f"order names masks {order.min()} to {order.max()}, there are {segments}")
    _check_runs(runs, out.size)


def _check_runs(runs: Runs, pixels: int) -> None:
    check_array("runs.counts", runs.counts, np.int64, (None,))
    check_array("runs.offsets", runs.offsets, np.int64, (None,))
    if runs.offsets[0] != 0 or runs.offsets[-1] != runs.counts.size or (np.diff(runs.offsets) < 0).any():
        raise ValueError(f"runs.offsets do not divide {runs.counts.size} run lengths")
    if runs.counts.min(initial=0) < 0 or runs.counts.max(initial=0) > pixels:  # then no sum overflows
        raise ValueError(f"the image has {pixels} pixels, runs are {runs.counts.min()} to {runs.counts.max()} long")
    ends = np.concatenate([[0], np.cumsum(runs.counts)])[runs.offsets]
    if (largest := np.diff(ends).max(initial=0)) > pixels:
        raise ValueError(f"the image has {pixels} pixels, the runs of a mask add up to {largest}")


def _dense(runs: Runs, height: int, width: int) -> NDArray[np.bool_]:
    """Return the masks, bool [N, H, W]."""
    flat = np.zeros((runs.offsets.size - 1, width * height), np.bool_)
    for mask, first, last in zip(flat, runs.offsets[:-1], runs.offsets[1:], strict=True):
        ends = np.cumsum(runs.counts[first:last])
        for start, stop in zip(ends[0::2], ends[1::2], strict=False):  # a last background run has no stop
            mask[start:stop] = True
    return flat.reshape(-1, width, height).transpose(0, 2, 1)
