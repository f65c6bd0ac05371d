"""The pixel decoder's weights, and the tables of a picture's rows and columns that it decodes with."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats
from maskrt.kernels.checks import check_array


@dataclass(frozen=True)
class AxisTable:
    """The features that n pixels along one axis read, among the m feature cells along it.

    cells: int64 [n, 2], the nearest cell on the low and on the high side; relative: float32 [n, 2], from each one's
    centre to the pixel's, in cells; places: float32 [n], the pixel's centre in [-1, 1]; cell: a pixel's size in cells,
    times two.
    """

    cells: NDArray[np.int64]
    relative: NDArray[np.float32]
    places: NDArray[np.float32]
    cell: np.float32

    def part(self, first: int, end: int) -> Self:
        """Return the table of the pixels first to end - 1."""
        return type(self)(self.cells[first:end], self.relative[first:end], self.places[first:end], self.cell)


@dataclass(frozen=True)
class DecoderWeights:
    """The pixel decoder without its first layer's product with the feature, which the features hold already.

    placed: float32 [h, 6], the first layer's weights of relative place, place and cell, each y and x; bias: [h];
    hidden: [L, h, h], hidden_bias [L, h]: out = weight @ in + bias, then ReLU; last: [h], last_bias: the logit's.
    """

    placed: Floats
    bias: Floats
    hidden: Floats
    hidden_bias: Floats
    last: Floats
    last_bias: np.float32

    def __post_init__(self) -> None:
        """Raise ValueError when the shapes do not fit together."""
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
        """Compute what a decoder's first layer adds for these rows and columns."""
        row_terms = _terms(rows, weights.placed[:, 0::2]) + weights.bias
        return cls(rows, columns, row_terms, _terms(columns, weights.placed[:, 1::2]))


def _terms(axis: AxisTable, placed: Floats) -> Floats:
    """Compute what the first layer adds along an axis; weights [h, 3] of relative place, place, cell -> [2, n, h]."""
    beside = np.broadcast_to(axis.places, axis.relative.T.shape)
    inputs = np.stack([axis.relative.T, beside, np.full_like(beside, axis.cell)], axis=-1)
    return np.ascontiguousarray(inputs @ placed.T)
