"""Bilinear sampling in Numba: two source rows are blended once, then every column takes two of the result."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.jit import contracted_kernel
from maskrt.kernels.sampling.reference import OUTSIDE, Floats, Indices, Taps, check_sample


def sample_bilinear(
    planes: NDArray[Any], rows: Taps, columns: Taps, scale: Floats, offset: Floats, out: Floats
) -> None:
    """Sample C planes at every row and column of the taps, then normalise.

    Args:
        planes: float32 or uint8 [C, h, w], of any strides.
        rows, columns: m and n places.
        scale, offset: float32 [C]; out = value * scale + offset within the picture, 0 outside.
        out: float32 [C, m, n], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or taps leave the planes.

    Source: reference.sample_bilinear is the definition; rows come first here, so it is equal to rounding.
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
