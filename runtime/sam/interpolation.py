"""Resizes a low-res mask with two small matrices, which works because resizing is linear along each axis.

Source: segment_anything's Sam.postprocess_masks. It resizes the low-res mask to the encoder's square, cuts out the
picture in it, and resizes that to the picture's own size; both steps are bilinear with half-pixel centres.
"""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats
from maskrt.kernels.resample.reference import taps


def grid_weights(low_res: int, square: int, length: int) -> Floats:
    """Return the weights that bring a low-res mask's rows, or columns, to the pixels that the encoder sees.

    Args:
        low_res: values of the low-res mask along the axis.
        square: side of the encoder's input in pixels.
        length: pixels of the picture in it, along the axis.

    Returns:
        float32 [length, low_res]: the logits of the grid are rows @ low_res_mask @ columns.T.
    """
    return np.asarray(_resized(np.eye(low_res, dtype=np.float64), square)[:length], np.float32)


def image_weights(low_res: int, square: int, length: int, size: int) -> Floats:
    """Return the weights for the `size` pixels of the picture itself, float32 [size, low_res]; see grid_weights."""
    seen = _resized(np.eye(low_res, dtype=np.float64), square)[:length]
    return np.asarray(_resized(seen, size), np.float32)


def interpolate(rows: Floats, low_res: Floats, columns: Floats) -> Floats:
    """Return the logits of a grid, float32 [R, C], from weights [R, l] and [C, l] and a low-res mask [l, l]."""
    return np.asarray(rows @ low_res @ columns.T, np.float32)


def _resized(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Resize the first axis to `size`."""
    first, second, weight = taps(len(values), size)
    share = weight.astype(np.float64)[:, None]
    return np.asarray(values[first] * (1 - share) + values[second] * share, np.float64)
