"""The definition of bilinear resizing, in plain NumPy."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats
from maskrt.kernels.checks import check_array


def resize_bilinear(values: Floats, out: Floats) -> None:
    """Resize N planes; half-pixel centres, edges clamped, no antialiasing.

    Args:
        values: float32 [N, h, w], C-contiguous.
        out: float32 [N, H, W], C-contiguous, overwritten.

    Raises:
        ValueError: a dtype or layout differs from the above, N differs, or a plane has no pixels.

    Source: ATen/native/cpu/UpSampleKernel.cpp of PyTorch, `upsample_generic_Nd_kernel_impl` with HelperInterpLinear,
    which float32 takes when H + W > 128. It lerps horizontally, then vertically, with fused multiply-adds.
    """
    check_planes(values, out)
    x0, x1, right = taps(values.shape[2], out.shape[2])
    y0, y1, lower = taps(values.shape[1], out.shape[1])
    wide = _lerp(values[:, :, x0], values[:, :, x1], right)
    out[:] = _lerp(wide[:, y0], wide[:, y1], lower[:, None])


def check_planes(values: Floats, out: Floats) -> None:
    """Raise ValueError unless `values` and `out` are as `resize_bilinear` wants them."""
    check_array("values", values, np.float32, (None, None, None))
    check_array("out", out, np.float32, (values.shape[0], None, None))
    if 0 in values.shape[1:] or 0 in out.shape[1:]:
        raise ValueError(f"cannot resize {list(values.shape)} to {list(out.shape)}: a plane has no pixels")


def taps(size: int, out_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return, for every output index, the two source indices and the weight of the second, in float32 as in PyTorch."""
    scale = np.float32(size) / np.float32(out_size)
    centres = np.arange(out_size, dtype=np.float32) + np.float32(0.5)
    source = np.maximum(_fma(np.full_like(centres, scale), centres, np.full_like(centres, -0.5)), np.float32(0))
    first = np.minimum(source.astype(np.int64), size - 1)
    weight = np.clip(source - first.astype(np.float32), np.float32(0), np.float32(1))
    return first, np.minimum(first + 1, size - 1), weight


def _lerp(first: Floats, second: Floats, weight: Floats) -> Floats:
    return _fma(first, np.float32(1) - weight, second * weight)


def _fma(a: Floats, b: Floats, c: Floats) -> Floats:
    # A float32 product is exact in float64; rounding the sum twice differs from a fused multiply-add once in 2**29.
    return (a.astype(np.float64) * b + c).astype(np.float32)
