"""Resizing a low-res mask as two small matrices: it is linear along each axis.

Source: segment_anything's Sam.postprocess_masks: low-res to the encoder's square, cut to the picture in it, and resized
to the picture's own size, both bilinear with half-pixel centres.
"""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats
from maskrt.kernels.resample.reference import taps


def grid_weights(low_res: int, square: int, length: int) -> Floats:
    """Weights of a low-res mask's rows, or columns, for the pixels that the encoder sees.

    Args:
        low_res: values along the axis; square: the encoder's size in pixels; length: pixels of the picture in it.

    Returns:
        float32 [length, low_res]: a grid's logits are rows @ low_res_mask @ columns.T.
    """
    return np.asarray(_resized(np.eye(low_res, dtype=np.float64), square)[:length], np.float32)


def image_weights(low_res: int, square: int, length: int, size: int) -> Floats:
    """As grid_weights, for the `size` pixels of the picture itself: float32 [size, low_res]."""
    seen = _resized(np.eye(low_res, dtype=np.float64), square)[:length]
    return np.asarray(_resized(seen, size), np.float32)


def interpolate(rows: Floats, low_res: Floats, columns: Floats) -> Floats:
    """Logits float32 [R, C] of a grid, from weights [R, l] and [C, l] and a low-res mask [l, l]."""
    return np.asarray(rows @ low_res @ columns.T, np.float32)


def _resized(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The first axis resized to `size`."""
    first, second, weight = taps(len(values), size)
    share = weight.astype(np.float64)[:, None]
    return np.asarray(values[first] * (1 - share) + values[second] * share, np.float64)
