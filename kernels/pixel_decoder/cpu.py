"""Decoding of pixels in Numba, in blocks of lanes; a lane is one pixel above one of its four features."""

import numba
import numpy as np

from maskrt.kernels.arrays import Floats, Indices
from maskrt.kernels.jit import contracted_function, contracted_kernel
from maskrt.kernels.pixel_decoder.reference import MIN_AREA, check_decode
from maskrt.kernels.pixel_decoder.types import DecoderWeights, Grid

PIXELS = 32  # in a block: both of its layers, 16 kB each at 32 channels, stay in the first cache
LANES = 4 * PIXELS
UNSIGNED = np.uintp


def decode_pixels(
    features: Floats, origin: tuple[int, int], grid: Grid, pixels: Indices, weights: DecoderWeights, out: Floats
) -> None:
    """Compute the probability of the mask at some pixels.

    Args:
        features: float32 [m, n, h], C-contiguous: a window of the picture's features, projected by the first layer.
        origin: row and column of the window's first feature among the picture's.
        grid: the picture's pixels.
        pixels: int64 [Q], row * W + column of each; all four features of each must be in the window.
        weights: the decoder's.
        out: float32 [Q], overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or a pixel needs a feature outside the window.

    Source: reference.decode_pixels is the definition; sums are in another order, so it is equal up to rounding.
    """
    check_decode(features, origin, grid, pixels, weights, out)
    _decode(
        features,
        origin[0],
        origin[1],
        grid.rows.cells,
        grid.rows.relative,
        grid.columns.cells,
        grid.columns.relative,
        grid.row_terms,
        grid.column_terms,
        pixels,
        *_in_fours(weights),
        weights.last_bias,
        out,
    )


def _in_fours(weights: DecoderWeights) -> tuple[Floats, Floats, Floats]:
    """Return hidden weights, their biases and the last layer, channels padded with zeros to a multiple of four."""
    more = -len(weights.bias) % 4
    return (
        np.pad(weights.hidden, ((0, 0), (0, more), (0, more))),
        np.pad(weights.hidden_bias, ((0, 0), (0, more))),
        np.pad(weights.last, (0, more)),
    )


@contracted_kernel
def _decode(
    features: Floats,
    first_row: int,
    first_column: int,
    row_cells: Indices,
    row_relative: Floats,
    column_cells: Indices,
    column_relative: Floats,
    row_terms: Floats,
    column_terms: Floats,
    pixels: Indices,
    hidden: Floats,
    hidden_bias: Floats,
    last: Floats,
    last_bias: np.float32,
    out: Floats,
) -> None:
    width = column_cells.shape[0]
    for block in numba.prange((pixels.size + PIXELS - 1) // PIXELS):
        begin = block * PIXELS
        count = min(PIXELS, pixels.size - begin)
        state, other = np.zeros(last.size * LANES, np.float32), np.empty(last.size * LANES, np.float32)
        for p in range(count):
            y, x = pixels[begin + p] // width, pixels[begin + p] % width
            for corner in range(4):
                dy, dx = corner // 2, corner % 2
                feature = features[row_cells[y, dy] - first_row, column_cells[x, dx] - first_column]
                _enter(feature, row_terms[dy, y], column_terms[dx, x], corner * PIXELS + p, state)
        for layer in range(hidden.shape[0]):
            _dense(hidden[layer], hidden_bias[layer], state, other)
            state, other = other, state
        _dot(last, last_bias, state, other)
        for p in range(count):
            y, x = pixels[begin + p] // width, pixels[begin + p] % width
            logit, total = np.float32(0), np.float32(0)
            for corner in range(4):
                dy, dx = corner // 2, corner % 2
                opposite = abs(row_relative[y, 1 - dy] * column_relative[x, 1 - dx]) + MIN_AREA
                logit += other[corner * PIXELS + p] * opposite
                total += opposite
            out[begin + p] = np.float32(1) / (np.float32(1) + np.exp(-(logit / total)))


# In the three functions below every index is unsigned. One that may be negative would have to be checked for wrapping
# around, and the loops would not be vectorised; vectorised, a block takes 3 us in place of 76.
@contracted_function
def _enter(feature: Floats, row_term: Floats, column_term: Floats, lane: int, state: Floats) -> None:
    """Compute the first layer of one lane: state[c, lane]."""
    at, lanes = UNSIGNED(lane), UNSIGNED(LANES)
    for c in range(UNSIGNED(feature.size)):
        state[c * lanes + at] = max(feature[c] + row_term[c] + column_term[c], np.float32(0))


@contracted_function
def _dense(weight: Floats, bias: Floats, x: Floats, y: Floats) -> None:
    """Compute y = relu(weight @ x + bias), lane by lane; x and y are [channels, LANES] as one axis.

    It takes four outputs and four inputs at a time: sixteen weights and four sums stay in registers, and a sum is
    loaded and stored once in four products. One axis lets the compiler see the distance between the rows.
    """
    lanes, four, size = UNSIGNED(LANES), UNSIGNED(4), UNSIGNED(bias.size)
    for j in range(UNSIGNED(0), size, four):
        o0 = j * lanes
        o1, o2, o3 = o0 + lanes, o0 + UNSIGNED(2 * LANES), o0 + UNSIGNED(3 * LANES)
        j1, j2, j3 = j + UNSIGNED(1), j + UNSIGNED(2), j + UNSIGNED(3)
        b0, b1, b2, b3 = bias[j], bias[j1], bias[j2], bias[j3]
        for p in range(lanes):
            y[o0 + p], y[o1 + p], y[o2 + p], y[o3 + p] = b0, b1, b2, b3
        for i in range(UNSIGNED(0), size, four):
            q0 = i * lanes
            q1, q2, q3 = q0 + lanes, q0 + UNSIGNED(2 * LANES), q0 + UNSIGNED(3 * LANES)
            i1, i2, i3 = i + UNSIGNED(1), i + UNSIGNED(2), i + UNSIGNED(3)
            w00, w01, w02, w03 = weight[j, i], weight[j, i1], weight[j, i2], weight[j, i3]
            w10, w11, w12, w13 = weight[j1, i], weight[j1, i1], weight[j1, i2], weight[j1, i3]
            w20, w21, w22, w23 = weight[j2, i], weight[j2, i1], weight[j2, i2], weight[j2, i3]
            w30, w31, w32, w33 = weight[j3, i], weight[j3, i1], weight[j3, i2], weight[j3, i3]
            for p in range(lanes):
                x0, x1, x2, x3 = x[q0 + p], x[q1 + p], x[q2 + p], x[q3 + p]
                y[o0 + p] += w00 * x0 + w01 * x1 + w02 * x2 + w03 * x3
                y[o1 + p] += w10 * x0 + w11 * x1 + w12 * x2 + w13 * x3
                y[o2 + p] += w20 * x0 + w21 * x1 + w22 * x2 + w23 * x3
                y[o3 + p] += w30 * x0 + w31 * x1 + w32 * x2 + w33 * x3
        for p in range(four * lanes):
            y[o0 + p] = max(y[o0 + p], np.float32(0))


@contracted_function
def _dot(last: Floats, bias: np.float32, x: Floats, out: Floats) -> None:
    """Set out[lane] = last @ x + bias, in the first LANES of `out`."""
    lanes = UNSIGNED(LANES)
    for p in range(lanes):
        out[p] = bias
    for i in range(UNSIGNED(last.size)):
        q, weight = i * lanes, last[i]
        for p in range(lanes):
            out[p] += weight * x[q + p]
