"""The definition of a mask's statistics, in plain NumPy."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Mask
from maskrt.kernels.checks import check_array


def box_and_counts(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the box and the run lengths of a mask.

    Args:
        mask: bool [H, W], C-contiguous, at least one pixel.

    Returns:
        box int32 [4], x0 y0 x1 y1 with the last pixel inclusive, all 0 for an empty mask; counts int64 [R],
        column-major run lengths that start with background (0 if the first pixel is foreground).

    Raises:
        ValueError: the dtype or layout differs, or there are no pixels.

    Source: segment_anything.utils.amg.batched_mask_to_box and mask_to_rle_pytorch.
    """
    check_mask(mask)
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(edges, prepend=0, append=flat.size)
    if flat[0]:
        counts = np.concatenate([[0], counts])
    box = np.zeros(4, np.int32)
    if mask.any():
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = xs[0], ys[0], xs[-1], ys[-1]
    return box, counts.astype(np.int64)


def check_mask(mask: Mask) -> None:
    """Raise ValueError unless `mask` is as `box_and_counts` wants it."""
    check_array("mask", mask, np.bool_, (None, None))
    if mask.size == 0:
        raise ValueError(f"a mask of {list(mask.shape)} has no pixels")
