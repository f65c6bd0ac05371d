"""Tables of the two features that a row or a column of pixels reads, and how far it is from each.

The original finds this by eight grid samples per point; it is a function of the row and of the column alone.
"""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.pixel_decoder.types import AxisTable

EPSILON = 1e-6  # by which the original moves its queries off the boundary between two cells


def axis_table(pixels: int, cells: int) -> AxisTable:
    """Compute the table of one axis, in float32 and in the original's order of operations, so that no rounding differs.

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
