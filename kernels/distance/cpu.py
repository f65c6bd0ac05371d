"""Squared distances in Numba.

The first pass goes down the columns. The second finds, along each row, the lower envelope of the columns' parabolas.
So the time grows with the number of pixels alone, and every number is whole.
"""

import numpy as np

from maskrt.kernels.arrays import Mask
from maskrt.kernels.distance.reference import Squares, check_squared_distance
from maskrt.kernels.jit import kernel


def squared_distance(mask: Mask, out: Squares) -> None:
    """Measure each pixel's squared Euclidean distance to the nearest false one; all is false beyond the picture.

    Args:
        mask: bool [H, W], C-contiguous.
        out: int64 [H, W], C-contiguous, overwritten; pixels squared, 0 where the mask is false.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: reference.squared_distance is the definition; the two passes are those of Meijster, Roerdink and Hesselink,
    "A general algorithm for computing distance transforms in linear time", 2000.
    """
    check_squared_distance(mask, out)
    _square_down(mask, out)
    _lower_envelope(out)


@kernel
def _square_down(mask: Mask, out: Squares) -> None:
    """Measure each pixel's squared distance to the nearest false one of its column."""
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            above = out[y - 1, x] if y > 0 else 0
            out[y, x] = above + 1 if mask[y, x] else 0
    below = np.zeros(width, np.int64)
    for y in range(height - 1, -1, -1):
        for x in range(width):
            below[x] = min(out[y, x], below[x] + 1)
            out[y, x] = below[x] * below[x]


@kernel
def _lower_envelope(out: Squares) -> None:
    """Set each pixel to the smallest (x - at)^2 + out[y, at] over its row, with zeros on both sides of the picture."""
    height, width = out.shape
    squares = np.zeros(width + 2, np.int64)  # a row and its two zeros
    owners = np.empty(width + 2, np.int64)  # whose parabolas are lowest somewhere, from left to right
    starts = np.empty(width + 2, np.int64)  # from which column on
    for y in range(height):
        squares[1:-1] = out[y]
        last = owners[0] = starts[0] = 0
        for at in range(1, width + 2):
            # The first parabola stays: at its own place, column 0, it is 0 and every other is not.
            while True:
                owner, start = owners[last], starts[last]
                if (start - owner) ** 2 + squares[owner] <= (start - at) ** 2 + squares[at]:
                    break
                last -= 1
            # Up to the column in which both meet, rounded down, the new one is not below the last.
            meeting = (at * at - owner * owner + squares[at] - squares[owner]) // (2 * (at - owner))
            if meeting < width + 1:
                last += 1
                owners[last], starts[last] = at, meeting + 1
        for x in range(width, 0, -1):
            while starts[last] > x:
                last -= 1
            out[y, x - 1] = (x - owners[last]) ** 2 + squares[owners[last]]
