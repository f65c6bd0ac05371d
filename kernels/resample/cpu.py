"""Bilinear resizing in Numba."""

import numpy as np
from numba import prange
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats
from maskrt.kernels.jit import contracted_kernel
from maskrt.kernels.resample.reference import check_planes

Indices = NDArray[np.int32]

HALF = np.float32(0.5)
ZERO = np.float32(0)
ONE = np.float32(1)


def resize_bilinear(values: Floats, out: Floats) -> None:
    """Resize N planes; half-pixel centres, edges clamped, no antialiasing.

    Equal to PyTorch bit for bit on a CPU with fused multiply-add when H + W > 128; below that PyTorch multiplies the
    four weights first and the last bit can differ.

    Args:
        values: float32 [N, h, w], C-contiguous.
        out: float32 [N, H, W], C-contiguous, overwritten.

    Raises:
        ValueError: a dtype or layout differs from the above, N differs, or a plane has no pixels.

    Source: reference.resize_bilinear is the definition.
    """
    check_planes(values, out)
    x0, x1, right = taps(values.shape[2], out.shape[2])
    y0, y1, lower = taps(values.shape[1], out.shape[1])
    wide = np.empty((values.shape[1], out.shape[2]), np.float32)
    for plane, out_plane in zip(values, out, strict=True):
        _resize_columns(plane, x0, x1, right, wide)
        _resize_rows(wide, y0, y1, lower, out_plane)


@contracted_kernel
def taps(size: int, out_size: int) -> tuple[Indices, Indices, Floats]:
    """Return, for every output index, the two source indices and the weight of the second."""
    scale = np.float32(size) / np.float32(out_size)
    first = np.empty(out_size, np.int32)
    second = np.empty(out_size, np.int32)
    weight = np.empty(out_size, np.float32)
    for i in prange(out_size):
        source = max(scale * (np.float32(i) + HALF) - HALF, ZERO)
        index = min(np.int32(source), np.int32(size - 1))
        first[i] = index
        second[i] = min(index + np.int32(1), np.int32(size - 1))
        weight[i] = min(max(source - np.float32(index), ZERO), ONE)
    return first, second, weight


# Both passes round to float32 where PyTorch's nested loop does, but each input row is lerped once instead of once per
# output row, and the vertical pass runs at the speed of vector loads.


@contracted_kernel
def _resize_columns(values: Floats, first: Indices, second: Indices, weight: Floats, out: Floats) -> None:
    for y in prange(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = values[y, first[x]] * (ONE - weight[x]) + values[y, second[x]] * weight[x]


@contracted_kernel
def _resize_rows(values: Floats, first: Indices, second: Indices, weight: Floats, out: Floats) -> None:
    for y in prange(out.shape[0]):
        upper, lower, below = values[first[y]], values[second[y]], weight[y]
        for x in range(out.shape[1]):
            out[y, x] = upper[x] * (ONE - below) + lower[x] * below
