"""Two-stage segmentation's work on patches, on the CPU."""

from functools import lru_cache

import numpy as np
from numba import prange

from maskrt.kernels.arrays import Bytes, Doubles, Floats
from maskrt.kernels.jit import kernel, parallel_kernel
from maskrt.kernels.patches.reference import (
    STEP,
    Corners,
    Size,
    check_blend,
    check_choice,
    check_gather,
    check_means,
    ramp_weights,
)
from maskrt.kernels.resample.reference import taps

ZERO, ONE = np.float32(0), np.float32(1)


def patch_means(values: Floats, size_hw: Size, side: int, out: Doubles) -> None:
    """Average planes, resized bilinearly to a picture's size, over the patches of a grid from the top left.

    Nothing is resized: resizing and averaging are both linear, axis by axis, so a patch's mean is a sum over its rows
    of `values` and over its columns, with weights that depend on the sizes alone.

    Args:
        values: float32 [N, h, w], C-contiguous.
        size_hw: the picture's size in pixels.
        side: the side of a patch in pixels.
        out: float64 [N, rows, columns], C-contiguous, overwritten; over pixels inside the picture.

    Raises:
        ValueError: a shape or dtype differs from the above, or there are no pixels.

    Source: reference.patch_means is the definition, equal up to rounding.
    """
    check_means(values, size_hw, side, out)
    rows, columns = (mean_weights(values.shape[axis + 1], size_hw[axis], side) for axis in (0, 1))
    np.matmul(rows @ values.astype(np.float64), columns.T, out=out)


@lru_cache(maxsize=32)
def mean_weights(size: int, out_size: int, side: int) -> Doubles:
    """Return what each of `size` values of an axis adds to each patch's mean: float64 [patches, size], read-only."""
    first, second, weight = taps(size, out_size)
    patches = np.arange(out_size) // side
    weights = np.zeros((int(patches[-1]) + 1, size))
    np.add.at(weights, (patches, first), 1 - weight.astype(np.float64))
    np.add.at(weights, (patches, second), weight.astype(np.float64))
    weights /= np.bincount(patches)[:, None]
    weights.flags.writeable = False
    return weights


def gather_patches(picture: Bytes, corners: Corners, table: Floats, out: Floats) -> None:
    """Cut patches out of a picture, channels first and normalised by a table; they are black where the picture ends.

    Args:
        picture: uint8 [H, W, C], C-contiguous.
        corners: int64 [N, 2], top and left; in the picture.
        table: float32 [C, 256], what a channel's value becomes.
        out: float32 [N, C, h, w], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or a corner leaves the picture.

    Source: reference.gather_patches is the definition.
    """
    check_gather(picture, corners, table, out)
    _gather(picture, corners, table, out)


@parallel_kernel
def _gather(picture: Bytes, corners: Corners, table: Floats, out: Floats) -> None:
    count, channels, tall, wide = out.shape
    for task in prange(count * tall):
        n, row = task // tall, task % tall
        y, left = corners[n, 0] + row, corners[n, 1]
        inside = min(wide, picture.shape[1] - left) if y < picture.shape[0] else 0
        for c in range(channels):
            for x in range(inside):
                out[n, c, row, x] = table[c, picture[y, left + x, c]]
            for x in range(inside, wide):
                out[n, c, row, x] = table[c, 0]


def blend_patches(found: Floats, corners: Corners, ramp: int, out: Floats) -> None:
    """Put patches into a map. With a ramp they fade into it, and into each other where they overlap.

    Args:
        found: float32 [N, C, side, side], C-contiguous.
        corners: int64 [N, 2], top and left; in the map.
        ramp: pixels over which a patch's weight falls towards its borders inside the map; 0 replaces the map's values.
        out: float32 [C, H, W], C-contiguous; changed under the patches.

    Raises:
        ValueError: a shape or dtype differs from the above, a corner leaves the map, or the ramp is negative.

    Source: reference.blend_patches is the definition.
    """
    check_blend(found, corners, ramp, out)
    _blend(found, corners, *ramp_weights(corners, found.shape[2], ramp, (out.shape[1], out.shape[2])), out)


@parallel_kernel
def _blend(found: Floats, corners: Corners, rows: Floats, columns: Floats, out: Floats) -> None:
    count, planes, side, _ = found.shape
    height, width = out.shape[1:]
    # Row by row: the sums of one row stay in the first cache, and no map of weights is made.
    for y in prange(height):
        total, weighted = np.zeros(width, np.float32), np.zeros((planes, width), np.float32)
        for n in range(count):
            row, left = y - corners[n, 0], corners[n, 1]
            if row < 0 or row >= side:
                continue
            for x in range(left, min(left + side, width)):
                weight = rows[n, row] * columns[n, x - left]
                total[x] += weight
                for c in range(planes):
                    weighted[c, x] += weight * found[n, c, row, x - left]
        for x in range(width):
            if total[x] > ZERO:
                for c in range(planes):
                    kept = max(ZERO, ONE - total[x]) * out[c, y, x]
                    out[c, y, x] = (weighted[c, x] + kept) / max(ONE, total[x])


def choose_windows(uncertainty: Doubles, side: int, count: int, least: float) -> Corners:
    """Choose windows greedily: the one with the largest sum comes first, and its cells count as 0 from then on.

    Args:
        uncertainty: float64 [h, w], 0 to 1, C-contiguous; rounded to multiples of STEP.
        side: the side of a window in cells, clipped to the axes.
        count: the most windows to choose.
        least: the choice ends before a window whose mean over its cells is below it; above 0.

    Returns:
        Corners, int64 [K, 2], in the order chosen; among equal sums the upper one, and in one row the left one, is
        first.

    Raises:
        ValueError: a shape or dtype differs from the above, a value is not 0 to 1, or side or least is too small.

    Source: reference.choose_windows is the definition.
    """
    check_choice(uncertainty, side, least)
    left = np.rint(uncertainty / STEP).astype(np.int64)
    height, width = (min(side, size) for size in left.shape)
    chosen = np.empty((max(count, 0), 2), np.int64)
    return chosen[: _choose(left, height, width, least * height * width / STEP, chosen)]


@kernel
def _choose(left: Corners, tall: int, wide: int, least: float, chosen: Corners) -> int:
    height, width = left.shape
    # Sums over the rectangle above and left of a corner; only what a choice has changed is summed again.
    above = np.zeros((height + 1, width + 1), np.int64)
    first = 0
    for number in range(len(chosen)):
        for y in range(first, height):
            along = 0
            for x in range(width):
                along += left[y, x]
                above[y + 1, x + 1] = above[y, x + 1] + along
        best, top, start = -1, 0, 0
        for y in range(height - tall + 1):
            for x in range(width - wide + 1):
                total = above[y + tall, x + wide] - above[y, x + wide] - above[y + tall, x] + above[y, x]
                if total > best:
                    best, top, start = total, y, x
        if best < least:
            return number
        chosen[number, 0], chosen[number, 1] = top, start
        left[top : top + tall, start : start + wide] = 0
        first = top
    return len(chosen)
