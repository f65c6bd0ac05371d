"""Which two features a row or a column of pixels reads, and how far it is from each.

What the original finds by eight grid samples per point is a function of the row and of the column alone.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-6  # by which the original moves its queries off the boundary between two cells


@dataclass(frozen=True)
class AxisTable:
    """For n pixels along one axis and the m feature cells along it.

    cells: int64 [n, 2], the nearest cell on the low and on the high side; relative: float32 [n, 2], from each one's
    centre to the pixel's, in cells; places: float32 [n], the pixel's centre in [-1, 1]; cell: a pixel's size in cells,
    times two.
    """

    cells: NDArray[np.int64]
    relative: NDArray[np.float32]
    places: NDArray[np.float32]
    cell: np.float32

    def part(self, first: int, end: int) -> Self:
        """The pixels first to end - 1."""
        return type(self)(self.cells[first:end], self.relative[first:end], self.places[first:end], self.cell)


def axis_table(pixels: int, cells: int) -> AxisTable:
    """The table of one axis, in float32 and in the original's order of operations, so that no rounding differs.

    Source: CRMNet.forward and PyTorch's nearest grid_sample without align_corners.
    """
    places, centres = _centres(pixels), _centres(cells)
    nearest = np.empty((pixels, 2), np.int64)
    for side, sign in enumerate((-1, 1)):
        shift = np.float32(sign * (2 / cells / 2) + EPSILON)
        shifted = np.clip(places + shift, np.float32(-1 + EPSILON), np.float32(1 - EPSILON))
        nearest[:, side] = np.rint((shifted + np.float32(1)) * np.float32(cells / 2) - np.float32(0.5))
    nearest = np.clip(nearest, 0, cells - 1)
    relative = (places[:, None] - centres[nearest]) * np.float32(cells)
    return AxisTable(nearest, relative, places, np.float32(2 / pixels) * np.float32(cells))


def _centres(count: int) -> NDArray[np.float32]:
    return np.float32(-1 + 1 / count) + np.float32(2 / count) * np.arange(count, dtype=np.float32)
