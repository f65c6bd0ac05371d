"""The definition of bilinear sampling with aligned corners, in plain NumPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats, Indices
from maskrt.kernels.checks import check_array
from maskrt.kernels.sampling.types import OUTSIDE, Taps


def resize_taps(size: int, out_size: int, first: int, end: int) -> Taps:
    """Return the taps of places first to end - 1 of an axis of `size` that is resized to `out_size`.

    Places below 0 or past the end are OUTSIDE.

    Source: upsample_bilinear2d of PyTorch with align_corners=True, its arithmetic in float32.
    """
    places = np.arange(first, end)
    scale = np.float32(size - 1) / np.float32(out_size - 1) if out_size > 1 else np.float32(0)
    real = scale * np.clip(places, 0, out_size - 1).astype(np.float32)
    low = np.minimum(real.astype(np.int64), size - 1)
    share = np.clip(real - low.astype(np.float32), np.float32(0), np.float32(1))
    inside = (places >= 0) & (places < out_size)
    high = np.minimum(low + 1, size - 1)
    return Taps(np.where(inside, low, OUTSIDE), np.where(inside, high, OUTSIDE), share)


def sample_bilinear(
    planes: NDArray[Any], rows: Taps, columns: Taps, scale: Floats, offset: Floats, out: Floats
) -> None:
    """Sample C planes at every row and column of the taps, then normalise.

    Args:
        planes: float32 or uint8 [C, h, w], of any strides.
        rows, columns: taps of m and n places.
        scale, offset: float32 [C]; out = value * scale + offset within the picture, 0 outside.
        out: float32 [C, m, n], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or taps leave the planes.
    """
    check_sample(planes, rows, columns, scale, offset, out)
    values = planes.astype(np.float32)

    def line(index: Indices) -> Floats:
        taken: Floats = values[:, index]
        return taken[:, :, columns.low] * (1 - columns.share) + taken[:, :, columns.high] * columns.share

    share = rows.share[:, None]
    sampled = line(rows.low) * (1 - share) + line(rows.high) * share
    inside = (rows.low != OUTSIDE)[:, None] & (columns.low != OUTSIDE)
    out[:] = np.where(inside, sampled * scale[:, None, None] + offset[:, None, None], 0)


def add_shifted(products: Floats, rows: Taps, columns: Taps, out: Floats) -> None:
    """Convolve a scaled-up map with a 3 x 3 kernel, from the products of the unscaled map with the nine taps.

    Each product is sampled at all places, shifted by its tap, and added. This is a convolution of the sampled map
    without padding.

    Args:
        products: float32 [9, C, h, w], C-contiguous, taps row by row.
        rows, columns: taps of m + 2 and n + 2 places.
        out: float32 [C, m, n], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or taps leave the products.
    """
    check_shifted(products, rows, columns, out)
    count, height, width = out.shape
    one, zero = np.ones(count, np.float32), np.zeros(count, np.float32)
    sampled = np.empty((count, height + 2, width + 2), np.float32)
    out[:] = 0
    for tap, product in enumerate(products):
        sample_bilinear(product, rows, columns, one, zero, sampled)
        down, across = divmod(tap, 3)
        out += sampled[:, down : down + height, across : across + width]


def check_shifted(products: Floats, rows: Taps, columns: Taps, out: Floats) -> None:
    """Raise ValueError unless the arguments are as `add_shifted` wants them."""
    check_array("products", products, np.float32, (9, None, None, None))
    check_array("out", out, np.float32, (products.shape[1], rows.low.size - 2, columns.low.size - 2))
    check_taps("rows", rows, products.shape[2])
    check_taps("columns", columns, products.shape[3])


def check_sample(planes: NDArray[Any], rows: Taps, columns: Taps, scale: Floats, offset: Floats, out: Floats) -> None:
    """Raise ValueError unless the arguments are as `sample_bilinear` wants them."""
    if planes.ndim != 3 or planes.dtype not in (np.float32, np.uint8):
        raise ValueError(f"planes: expected float32 or uint8 [C, h, w], got {planes.dtype} {list(planes.shape)}")
    check_array("out", out, np.float32, (planes.shape[0], rows.low.size, columns.low.size))
    check_array("scale", scale, np.float32, planes.shape[:1])
    check_array("offset", offset, np.float32, planes.shape[:1])
    check_taps("rows", rows, planes.shape[1])
    check_taps("columns", columns, planes.shape[2])


def check_taps(name: str, taps: Taps, size: int) -> None:
    """Raise ValueError unless taps are arrays of one length that stay on an axis of `size`."""
    for index in (taps.low, taps.high):
        check_array(name, index, np.int64, (taps.low.size,))
        if index.size and (index.min() < OUTSIDE or index.max() >= size):
            raise ValueError(f"{name}: taps {index.min()} to {index.max()} leave an axis of {size}")
    check_array(f"{name}.share", taps.share, np.float32, (taps.low.size,))
