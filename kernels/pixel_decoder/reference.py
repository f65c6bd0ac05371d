"""The definition of decoding pixels, in plain NumPy."""

from dataclasses import dataclass

import numpy as np

from maskrt.kernels.arrays import Floats, Indices
from maskrt.kernels.checks import check_array
from maskrt.kernels.pixel_decoder.tables import AxisTable

MIN_AREA = np.float32(1e-9)


@dataclass(frozen=True)
class DecoderWeights:
    """The pixel decoder behind its first layer's product with the feature, which the features hold already.

    placed: float32 [h, 6], the first layer's weights of relative place, place and cell, each y and x; bias: [h];
    hidden: [L, h, h], hidden_bias [L, h]: out = weight @ in + bias, then ReLU; last: [h], last_bias: of the logit.
    """

    placed: Floats
    bias: Floats
    hidden: Floats
    hidden_bias: Floats
    last: Floats
    last_bias: np.float32

    def __post_init__(self) -> None:
        """Raises ValueError when the shapes do not fit together."""
        width = len(self.bias)
        check_array("placed", self.placed, np.float32, (width, 6))
        check_array("bias", self.bias, np.float32, (width,))
        check_array("hidden", self.hidden, np.float32, (None, width, width))
        check_array("hidden_bias", self.hidden_bias, np.float32, (len(self.hidden), width))
        check_array("last", self.last, np.float32, (width,))
        check_array("last_bias", np.asarray(self.last_bias), np.float32, ())


@dataclass(frozen=True)
class Grid:
    """The pixels of a picture above its features, and what the first layer adds for each row and column.

    rows, columns: tables of all H rows and W columns; row_terms: float32 [2, H, h], bias included; column_terms:
    float32 [2, W, h]; index 0 is for the low of the two nearest cells.
    """

    rows: AxisTable
    columns: AxisTable
    row_terms: Floats
    column_terms: Floats

    @classmethod
    def of(cls, rows: AxisTable, columns: AxisTable, weights: DecoderWeights) -> "Grid":
        """The terms of a decoder."""
        row_terms = _terms(rows, weights.placed[:, 0::2]) + weights.bias
        return cls(rows, columns, row_terms, _terms(columns, weights.placed[:, 1::2]))


def decode_pixels(
    features: Floats, origin: tuple[int, int], grid: Grid, pixels: Indices, weights: DecoderWeights, out: Floats
) -> None:
    """The probability of the mask at some pixels.

    Each of a pixel's four nearest features, with the pixel's place in it, goes through the decoder; a logit weighs what
    the diagonally opposite cell covers of the square between the four centres.

    Args:
        features: float32 [m, n, h], C-contiguous: a window of the picture's features, projected by the first layer.
        origin: row and column of the window's first feature among the picture's.
        grid: the picture's.
        pixels: int64 [Q], row * W + column of each; all four features of each must be in the window.
        weights: of the decoder.
        out: float32 [Q], overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or a pixel needs a feature outside the window.

    Source: CRMNet.forward, with its first layer taken apart.
    """
    check_decode(features, origin, grid, pixels, weights, out)
    y, x = np.divmod(pixels, len(grid.columns.places))
    logits, total = np.zeros(pixels.size, np.float32), np.zeros(pixels.size, np.float32)
    for dy in (0, 1):
        for dx in (0, 1):
            near = features[grid.rows.cells[y, dy] - origin[0], grid.columns.cells[x, dx] - origin[1]]
            hidden = np.maximum(near + grid.row_terms[dy, y] + grid.column_terms[dx, x], 0)
            for weight, bias in zip(weights.hidden, weights.hidden_bias, strict=True):
                hidden = np.maximum(hidden @ weight.T + bias, 0)
            opposite = np.abs(grid.rows.relative[y, 1 - dy] * grid.columns.relative[x, 1 - dx]) + MIN_AREA
            logits += (hidden @ weights.last + weights.last_bias) * opposite
            total += opposite
    out[:] = 1 / (1 + np.exp(-(logits / total)))


def check_decode(
    features: Floats, origin: tuple[int, int], grid: Grid, pixels: Indices, weights: DecoderWeights, out: Floats
) -> None:
    """Raise ValueError unless the arguments are as `decode_pixels` wants them."""
    width = len(weights.bias)
    height, columns = len(grid.rows.places), len(grid.columns.places)
    check_array("features", features, np.float32, (None, None, width))
    check_array("pixels", pixels, np.int64, (None,))
    check_array("out", out, np.float32, (pixels.size,))
    check_array("row_terms", grid.row_terms, np.float32, (2, height, width))
    check_array("column_terms", grid.column_terms, np.float32, (2, columns, width))
    if not pixels.size:
        return
    if pixels.min() < 0 or pixels.max() >= height * columns:
        raise ValueError(f"a pixel is outside the picture of {height} x {columns}")
    y, x = np.divmod(pixels, columns)
    for axis, places, cells, first in ((0, y, grid.rows.cells, origin[0]), (1, x, grid.columns.cells, origin[1])):
        used = cells[places.min() : places.max() + 1]  # tables never decrease
        if used[0, 0] < first or used[-1, 1] >= first + features.shape[axis]:
            raise ValueError(
                f"pixels read features {used[0, 0]} to {used[-1, 1]} of axis {axis}, "
                f"the window holds {first} to {first + features.shape[axis] - 1}"
            )


def _terms(axis: AxisTable, placed: Floats) -> Floats:
    """What the first layer adds along one axis: weights [h, 3] of relative place, place and cell -> [2, n, h]."""
    beside = np.broadcast_to(axis.places, axis.relative.T.shape)
    inputs = np.stack([axis.relative.T, beside, np.full_like(beside, axis.cell)], axis=-1)
    return np.ascontiguousarray(inputs @ placed.T)
