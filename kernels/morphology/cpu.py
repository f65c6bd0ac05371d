"""Dilation and erosion in Numba.

Each row of a shape that is laid on a point costs two additions, whatever its length. An erosion costs two passes,
however often it is repeated.
"""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Indices, Mask
from maskrt.kernels.jit import kernel
from maskrt.kernels.morphology.reference import check_dilate, check_erode_cross


def dilate(points: Mask, reach: Indices, out: Mask) -> None:
    """Mark every pixel that a shape covers when it is laid on a point.

    Args:
        points: bool [H, W], C-contiguous; few points, such as a contour, take the least time.
        reach: int64 [2 * r + 1], how far each of the shape's rows, from r above to r below, extends on either side.
        out: bool [H, W], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: reference.dilate is the definition.
    """
    check_dilate(points, reach, out)
    starts = np.zeros((points.shape[0], points.shape[1] + 1), np.int32)
    _open_spans(points, reach, starts)
    np.cumsum(starts, axis=1, out=starts)
    np.greater(starts[:, :-1], 0, out=out)


def erode_cross(mask: Mask, times: int, out: Mask) -> None:
    """Erode with the 3 x 3 cross so many times; all is true beyond the picture, so its border stays.

    Args:
        mask: bool [H, W], C-contiguous.
        times: 0 or more.
        out: bool [H, W], C-contiguous, overwritten; not `mask` itself.

    Raises:
        ValueError: a shape or dtype differs from the above, or times is negative.

    Source: reference.erode_cross is the definition. The pixels that stay lie further than `times` from every false
    pixel, counted in steps across and down.
    """
    check_erode_cross(mask, times, out)
    # Nothing is further away than from corner to corner; the bound also keeps the counts in int32.
    bound = min(times, mask.shape[0] + mask.shape[1])
    steps = np.empty(mask.shape, np.int32)
    _count_steps(mask, bound + 1, steps)
    np.greater(steps, bound, out=out)


@kernel
def _count_steps(mask: Mask, most: int, steps: NDArray[np.int32]) -> None:
    """Count each pixel's steps to the nearest false one, at most `most`, in a pass down and a pass up."""
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            nearest = most if mask[y, x] else 0
            if y > 0:
                nearest = min(nearest, steps[y - 1, x] + 1)
            if x > 0:
                nearest = min(nearest, steps[y, x - 1] + 1)
            steps[y, x] = nearest
    for y in range(height - 1, -1, -1):
        for x in range(width - 1, -1, -1):
            nearest = steps[y, x]
            if y < height - 1:
                nearest = min(nearest, steps[y + 1, x] + 1)
            if x < width - 1:
                nearest = min(nearest, steps[y, x + 1] + 1)
            steps[y, x] = nearest


@kernel
def _open_spans(points: Mask, reach: Indices, starts: NDArray[np.int32]) -> None:
    """Add 1 where each row of a laid-on shape begins, and subtract 1 behind its end."""
    height, width = points.shape
    radius = reach.size // 2
    for y in range(height):
        for x in range(width):
            if not points[y, x]:
                continue
            for row in range(max(0, y - radius), min(height, y + radius + 1)):
                span = reach[row - y + radius]
                starts[row, max(0, x - span)] += 1
                starts[row, min(width, x + span + 1)] -= 1
