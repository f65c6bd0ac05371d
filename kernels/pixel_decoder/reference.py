"""The definition of decoding pixels, in plain NumPy."""

import numpy as np

from maskrt.kernels.arrays import Floats, Indices
from maskrt.kernels.checks import check_array
from maskrt.kernels.pixel_decoder.types import DecoderWeights, Grid

MIN_AREA = np.float32(1e-9)


def decode_pixels(
    features: Floats, origin: tuple[int, int], grid: Grid, pixels: Indices, weights: DecoderWeights, out: Floats
) -> None:
    """Compute the probability of the mask at some pixels.

    Each of a pixel's four nearest features goes through the decoder, with the pixel's place in it. A logit's weight is
    what the diagonally opposite cell covers of the square between the four centres.

    Args:
        features: float32 [m, n, h], C-contiguous: a window of the picture's features, projected by the first layer.
        origin: row and column of the window's first feature among the picture's.
        grid: the picture's pixels.
        pixels: int64 [Q], row * W + column of each; all four features of each must be in the window.
        weights: the decoder's.
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
