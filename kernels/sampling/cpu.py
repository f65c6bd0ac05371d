"""Bilinear sampling in Numba: two source rows are blended once, then every column takes two of the result."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats, Indices
from maskrt.kernels.jit import contracted_kernel
from maskrt.kernels.sampling.reference import check_sample, check_shifted
from maskrt.kernels.sampling.types import OUTSIDE, Taps


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

    Source: reference.sample_bilinear is the definition; rows come first here, so it is equal up to rounding.
    """
    check_sample(planes, rows, columns, scale, offset, out)
    inside = columns.low != OUTSIDE
    if not inside.any():
        out[:] = 0
        return
    read = np.concatenate([columns.low[inside], columns.high[inside]])
    first, end = int(read.min()), int(read.max()) + 1
    _sample(
        planes[:, :, first:end],
        rows.low,
        rows.high,
        rows.share,
        np.where(columns.low == OUTSIDE, OUTSIDE, columns.low - first),
        np.where(columns.high == OUTSIDE, OUTSIDE, columns.high - first),
        columns.share,
        scale,
        offset,
        out,
    )


def add_shifted(products: Floats, rows: Taps, columns: Taps, out: Floats) -> None:
    """Convolve a scaled-up map with a 3 x 3 kernel, from the products of the unscaled map with the nine taps.

    Args:
        products: float32 [9, C, h, w], C-contiguous, taps row by row.
        rows, columns: taps of m + 2 and n + 2 places.
        out: float32 [C, m, n], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or taps leave the products.

    Source: reference.add_shifted is the definition; the sums are in another order, so it is equal up to rounding.
    """
    check_shifted(products, rows, columns, out)
    # A place outside reads the first column with weight 0.
    inside = (columns.low != OUTSIDE).astype(np.float32)
    low, high = np.maximum(columns.low, 0), np.maximum(columns.high, 0)
    _add_shifted(
        products,
        rows.low,
        rows.high,
        rows.share,
        low.astype(np.uintp),
        high.astype(np.uintp),
        inside * (1 - columns.share),
        inside * columns.share,
        out,
    )


@contracted_kernel
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
    channels, height, width = out.shape
    for task in numba.prange(channels * height):
        c, y = task // height, task % height
        target = out[c, y]
        if row_low[y] == OUTSIDE:
            target[:] = 0
            continue
        upper, lower, share = planes[c, row_low[y]], planes[c, row_high[y]], row_share[y]
        # Normalised here already: the blend of the columns keeps it.
        above, below = (np.float32(1) - share) * scale[c], share * scale[c]
        line = np.empty(upper.size, np.float32)
        for x in range(upper.size):
            line[x] = upper[x] * above + lower[x] * below + offset[c]
        for x in range(width):
            low, high = column_low[x], column_high[x]
            target[x] = line[low] + (line[high] - line[low]) * column_share[x] if low != OUTSIDE else np.float32(0)


@contracted_kernel
def _add_shifted(
    products: Floats,
    row_low: Indices,
    row_high: Indices,
    row_share: Floats,
    column_low: NDArray[np.uintp],
    column_high: NDArray[np.uintp],
    weight_low: Floats,
    weight_high: Floats,
    out: Floats,
) -> None:
    channels, height, width = out.shape
    for c in numba.prange(channels):
        lines = np.empty((3, products.shape[3]), np.float32)
        for y in range(height):
            # Rows first: they are short, since the map is coarse.
            lines[:] = 0
            for down in range(3):
                row = y + down
                if row_low[row] == OUTSIDE:
                    continue
                share = row_share[row]
                for across in range(3):
                    product, line = products[3 * down + across, c], lines[across]
                    upper, lower = product[row_low[row]], product[row_high[row]]
                    for x in range(line.size):
                        line[x] += upper[x] * (np.float32(1) - share) + lower[x] * share
            first, second, third, target = lines[0], lines[1], lines[2], out[c, y]
            for x in range(np.uintp(width)):
                x1, x2 = x + np.uintp(1), x + np.uintp(2)
                target[x] = (
                    first[column_low[x]] * weight_low[x]
                    + first[column_high[x]] * weight_high[x]
                    + second[column_low[x1]] * weight_low[x1]
                    + second[column_high[x1]] * weight_high[x1]
                    + third[column_low[x2]] * weight_low[x2]
                    + third[column_high[x2]] * weight_high[x2]
                )
