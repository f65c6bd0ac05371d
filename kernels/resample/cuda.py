"""Bilinear resizing on a GPU, with a thread for every output pixel."""

import numpy as np
from numba import cuda

from maskrt.kernels import device
from maskrt.kernels.arrays import Floats, Indices
from maskrt.kernels.device import fma
from maskrt.kernels.resample.reference import check_planes, taps


def resize_bilinear(values: Floats, out: Floats) -> None:
    """Resize N planes; half-pixel centres, edges clamped, no antialiasing.

    Args:
        values: float32 [N, h, w], C-contiguous. May be on the device.
        out: float32 [N, H, W], C-contiguous, overwritten. May be on the device.

    Raises:
        ValueError: a dtype or layout differs from the above, N differs, or a plane has no pixels.

    Source: reference.resize_bilinear is the definition.
    """
    check_planes(values, out)
    axes = (taps(values.shape[axis], out.shape[axis]) for axis in (1, 2))
    tables = [device.to_device(table) for axis in axes for table in axis]
    with device.written(out) as resized:
        device.launch(_resize, out.size, device.to_device(values), *tables, resized)


@device.function
def lerp(first: np.float32, second: np.float32, weight: np.float32) -> np.float32:
    """Interpolate from first to second, with the roundings of the definition."""
    return fma(first, np.float32(1) - weight, second * weight)


@device.kernel
def _resize(
    values: Floats, y0: Indices, y1: Indices, lower: Floats, x0: Indices, x1: Indices, right: Floats, out: Floats
) -> None:
    _, height, width = out.shape
    for task in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        n, y, x = task // (height * width), task // width % height, task % width
        a, b, c, d = y0[y], y1[y], x0[x], x1[x]
        above = lerp(values[n, a, c], values[n, a, d], right[x])
        below = lerp(values[n, b, c], values[n, b, d], right[x])
        out[n, y, x] = lerp(above, below, lower[y])
