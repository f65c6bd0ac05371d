"""Decoding of pixels on a GPU. A thread takes a pixel: its four features, one by one, go through all layers."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from maskrt.kernels import device
from maskrt.kernels.arrays import Floats, Indices
from maskrt.kernels.pixel_decoder.reference import MIN_AREA, check_decode
from maskrt.kernels.pixel_decoder.types import DecoderWeights, Grid


def decode_pixels(
    features: Floats, origin: tuple[int, int], grid: Grid, pixels: Indices, weights: DecoderWeights, out: Floats
) -> None:
    """Compute the probability of the mask at some pixels.

    Args:
        features: float32 [m, n, h], C-contiguous: a window of the picture's features, projected by the first layer.
            May be on the device.
        origin: row and column of the window's first feature among the picture's.
        grid: the picture's pixels.
        pixels: int64 [Q], row * W + column of each; all four features of each must be in the window.
        weights: the decoder's.
        out: float32 [Q], overwritten. May be on the device.

    Raises:
        ValueError: a shape or dtype differs from the above, or a pixel needs a feature outside the window.

    Source: reference.decode_pixels is the definition; sums are in another order, so it is equal up to rounding.
    """
    check_decode(features, origin, grid, pixels, weights, out)
    if not pixels.size:
        return
    y, x = np.divmod(pixels, len(grid.columns.places))
    # Only what the pixels read of the picture's tables is copied.
    rows, columns = slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1)
    tables = (
        grid.rows.cells[rows] - origin[0],
        grid.rows.relative[rows],
        grid.columns.cells[columns] - origin[1],
        grid.columns.relative[columns],
        grid.row_terms[:, rows],
        grid.column_terms[:, columns],
        y - rows.start,
        x - columns.start,
        weights.hidden,
        weights.hidden_bias,
        weights.last,
    )
    on_device = [device.to_device(table) for table in tables]
    decode = _decoder(len(weights.bias))
    with device.written(out) as decoded:
        device.launch(decode, pixels.size, device.to_device(features), *on_device, weights.last_bias, decoded)


@lru_cache
def _decoder(channels: int) -> Any:
    """Return the kernel for a number of channels: the compiler must know the size of a thread's own arrays."""

    @device.kernel
    def decode(
        features: Floats,
        row_cells: Indices,
        row_relative: Floats,
        column_cells: Indices,
        column_relative: Floats,
        row_terms: Floats,
        column_terms: Floats,
        ys: Indices,
        xs: Indices,
        hidden: Floats,
        hidden_bias: Floats,
        last: Floats,
        last_bias: np.float32,
        out: Floats,
    ) -> None:
        state, other = cuda.local.array(channels, np.float32), cuda.local.array(channels, np.float32)
        for pixel in range(cuda.grid(1), out.size, cuda.gridsize(1)):
            y, x = ys[pixel], xs[pixel]
            logit, total = np.float32(0), np.float32(0)
            for corner in range(4):
                dy, dx = corner // 2, corner % 2
                row, column = row_cells[y, dy], column_cells[x, dx]
                for c in range(channels):
                    entered = features[row, column, c] + row_terms[dy, y, c] + column_terms[dx, x, c]
                    state[c] = max(entered, np.float32(0))
                for layer in range(hidden.shape[0]):
                    for j in range(channels):
                        total_in = hidden_bias[layer, j]
                        for i in range(channels):
                            total_in += hidden[layer, j, i] * state[i]
                        other[j] = max(total_in, np.float32(0))
                    for c in range(channels):
                        state[c] = other[c]
                answer = last_bias
                for c in range(channels):
                    answer += last[c] * state[c]
                opposite = abs(row_relative[y, 1 - dy] * column_relative[x, 1 - dx]) + MIN_AREA
                logit += answer * opposite
                total += opposite
            out[pixel] = np.float32(1) / (np.float32(1) + math.exp(-(logit / total)))

    return decode
