"""The definition of the squared distance, in plain NumPy."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Mask
from maskrt.kernels.checks import check_array

Squares = NDArray[np.int64]


def squared_distance(mask: Mask, out: Squares) -> None:
    """Measure each pixel's squared Euclidean distance to the nearest false one; all is false beyond the picture.

    Args:
        mask: bool [H, W], C-contiguous.
        out: int64 [H, W], C-contiguous, overwritten; pixels squared, 0 where the mask is false.

    Raises:
        ValueError: a shape or dtype differs from the above.
    """
    check_squared_distance(mask, out)
    outside = np.argwhere(~np.pad(mask, 1))  # the nearest pixel beyond the picture is right beside it
    for y, x in np.ndindex(mask.shape):
        out[y, x] = ((outside - (y + 1, x + 1)) ** 2).sum(axis=1).min()


def check_squared_distance(mask: Mask, out: Squares) -> None:
    """Raise ValueError unless the arguments are as `squared_distance` wants them."""
    check_array("mask", mask, np.bool_, (None, None))
    check_array("out", out, np.int64, mask.shape)
