"""The choice of pixels that a refiner decodes, in Numba, on one thread: it takes little time beside the decoding."""

import numpy as np

from maskrt.kernels.arrays import Floats, Mask
from maskrt.kernels.jit import kernel
from maskrt.kernels.selections.reference import check_squares


def settle_squares(found: Floats, decoded: Mask, step: int, margin: float, squares: Mask) -> None:
    """Fill the lattice squares whose corners agree, and keep the others to be divided.

    Args:
        found: float32 [H, W], C-contiguous, probabilities; read at the corners of the squares looked at, and filled.
        decoded: bool [H, W], C-contiguous; pixels that are not to be filled.
        step: side of the squares; both edges are read, the first one is filled.
        margin: 0 to 0.5; corners agree where all lie within it of 0, or all within it of 1.
        squares: bool [m, n], C-contiguous; true for those to look at, and set to false where settled.

    Raises:
        ValueError: a shape or dtype differs from the above, the step is below 1, or the margin is not 0 to 0.5.

    Source: reference.settle_squares is the definition.
    """
    check_squares(found, decoded, step, margin, squares)
    _settle_squares(found, decoded, step, np.float32(margin), np.float32(1 - margin), squares)


@kernel
def _settle_squares(found: Floats, decoded: Mask, step: int, low: np.float32, high: np.float32, squares: Mask) -> None:
    height, width = found.shape
    one = np.float32(1)
    for i in range(squares.shape[0]):
        y0, y1 = i * step, min((i + 1) * step, height - 1)
        bottom = height if i == squares.shape[0] - 1 else y1
        tall = np.float32(max(1, y1 - y0))
        for j in range(squares.shape[1]):
            if not squares[i, j]:
                continue
            x0, x1 = j * step, min((j + 1) * step, width - 1)
            p00, p01, p10, p11 = found[y0, x0], found[y0, x1], found[y1, x0], found[y1, x1]
            if max(p00, p01, p10, p11) > low and min(p00, p01, p10, p11) < high:
                continue
            squares[i, j] = False
            right = width if j == squares.shape[1] - 1 else x1
            wide = np.float32(max(1, x1 - x0))
            for y in range(y0, bottom):
                down = np.float32(y - y0) / tall
                for x in range(x0, right):
                    if not decoded[y, x]:
                        across = np.float32(x - x0) / wide
                        upper = (one - across) * p00 + across * p01
                        lower = (one - across) * p10 + across * p11
                        found[y, x] = (one - down) * upper + down * lower
