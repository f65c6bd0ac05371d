"""Dilation in Numba: each row of a laid-on shape costs two additions, whatever its length."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.jit import kernel
from maskrt.kernels.morphology.reference import Indices, Mask, check_dilate


def dilate(points: Mask, reach: Indices, out: Mask) -> None:
    """Every pixel from which a shape, laid on a point, reaches.

    Args:
        points: bool [H, W], C-contiguous; best few of them, such as a contour.
        reach: int64 [2 * r + 1], of the shape's rows from r above to r below: how far it extends on either side.
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


@kernel
def _open_spans(points: Mask, reach: Indices, starts: NDArray[np.int32]) -> None:
    """Of every laid-on row: + 1 where it begins, - 1 behind its end."""
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
