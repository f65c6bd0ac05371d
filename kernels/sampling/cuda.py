"""Bilinear sampling on a GPU, with a thread for every output value."""

from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from maskrt.kernels import device
from maskrt.kernels.arrays import Floats, Indices
from maskrt.kernels.sampling.reference import check_sample, check_shifted
from maskrt.kernels.sampling.types import OUTSIDE, Taps


def sample_bilinear(
    planes: NDArray[Any], rows: Taps, columns: Taps, scale: Floats, offset: Floats, out: Floats
) -> None:
    """Sample C planes at every row and column of the taps, then normalise.

    Args:
        planes: float32 or uint8 [C, h, w], of any strides. May be on the device.
        rows, columns: taps of m and n places.
        scale, offset: float32 [C]; out = value * scale + offset within the picture, 0 outside.
        out: float32 [C, m, n], C-contiguous, overwritten. May be on the device.

    Raises:
        ValueError: a shape or dtype differs from the above, or taps leave the planes.

    Source: reference.sample_bilinear is the definition; sums may be fused with products, so it is equal up to rounding.
    """
    check_sample(planes, rows, columns, scale, offset, out)
    if isinstance(planes, np.ndarray):  # then only what is read is copied
        (top, bottom), (left, right) = _span(rows), _span(columns)
        planes = planes[:, top:bottom, left:right]
        rows, columns = _moved(rows, top), _moved(columns, left)
    axes = [*_on_device(rows), *_on_device(columns)]
    normal = device.to_device(scale), device.to_device(offset)
    with device.written(out) as sampled:
        device.launch(_sample, out.size, device.to_device(planes), *axes, *normal, sampled)


def add_shifted(products: Floats, rows: Taps, columns: Taps, out: Floats) -> None:
    """Convolve a scaled-up map with a 3 x 3 kernel, from the products of the unscaled map with the nine taps.

    Args:
        products: float32 [9, C, h, w], C-contiguous, taps row by row. May be on the device.
        rows, columns: taps of m + 2 and n + 2 places.
        out: float32 [C, m, n], C-contiguous, overwritten. May be on the device.

    Raises:
        ValueError: a shape or dtype differs from the above, or taps leave the products.

    Source: reference.add_shifted is the definition; sums may be fused with products, so it is equal up to rounding.
    """
    check_shifted(products, rows, columns, out)
    axes = [*_on_device(rows), *_on_device(columns)]
    with device.written(out) as summed:
        device.launch(_add_shifted, out.size, device.to_device(products), *axes, summed)


def _span(taps: Taps) -> tuple[int, int]:
    """Return the first index that is read, and the one behind the last; 0, 0 for none."""
    inside = taps.low != OUTSIDE
    if not inside.any():
        return 0, 0
    read = np.concatenate([taps.low[inside], taps.high[inside]])
    return int(read.min()), int(read.max()) + 1


def _moved(taps: Taps, first: int) -> Taps:
    low, high = (np.where(index == OUTSIDE, OUTSIDE, index - first) for index in (taps.low, taps.high))
    return Taps(low, high, taps.share)


def _on_device(taps: Taps) -> tuple[Any, Any, Any]:
    return device.to_device(taps.low), device.to_device(taps.high), device.to_device(taps.share)


@device.kernel
def _sample(
    planes: NDArray[Any],
    row_low: Indices,
    row_high: Indices,
    row_share: Floats,
    column_low: Indices,
    column_high: Indices,
    column_share: Floats,
    scale: Floats,
    offset: Floats,
    out: Floats,
) -> None:
    _, height, width = out.shape
    for task in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        n, y, x = task // (height * width), task // width % height, task % width
        top, bottom, left, right = row_low[y], row_high[y], column_low[x], column_high[x]
        if top == OUTSIDE or left == OUTSIDE:
            out[n, y, x] = np.float32(0)
            continue
        share = column_share[x]
        above = _blend(planes[n, top, left], planes[n, top, right], share)
        below = _blend(planes[n, bottom, left], planes[n, bottom, right], share)
        out[n, y, x] = _blend(above, below, row_share[y]) * scale[n] + offset[n]


@device.kernel
def _add_shifted(
    products: Floats,
    row_low: Indices,
    row_high: Indices,
    row_share: Floats,
    column_low: Indices,
    column_high: Indices,
    column_share: Floats,
    out: Floats,
) -> None:
    _, height, width = out.shape
    for task in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        n, y, x = task // (height * width), task // width % height, task % width
        total = np.float32(0)
        for tap in range(9):
            row, column = y + tap // 3, x + tap % 3
            top, bottom, left, right = row_low[row], row_high[row], column_low[column], column_high[column]
            if top != OUTSIDE and left != OUTSIDE:
                share = column_share[column]
                above = _blend(products[tap, n, top, left], products[tap, n, top, right], share)
                below = _blend(products[tap, n, bottom, left], products[tap, n, bottom, right], share)
                total += _blend(above, below, row_share[row])
        out[n, y, x] = total


@device.function
def _blend(first: Any, second: Any, share: np.float32) -> np.float32:
    return np.float32(first) * (np.float32(1) - share) + np.float32(second) * share
