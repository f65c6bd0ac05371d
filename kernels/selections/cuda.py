"""The choice of pixels that a refiner decodes, on a GPU: a thread for every pixel reads its square's corners."""

import numpy as np
from numba import cuda

from maskrt.kernels import device
from maskrt.kernels.arrays import Floats, Mask
from maskrt.kernels.device import product
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
    values, open_squares = device.to_device(found), device.to_device(squares)
    asked = device.to_device(squares)  # its pixels are still read while the square is being settled
    limits = np.float32(margin), np.float32(1 - margin)
    device.launch(_settle, found.size, values, device.to_device(decoded), step, *limits, asked, open_squares)
    device.to_host(values, found)
    device.to_host(open_squares, squares)


@device.kernel
def _settle(
    found: Floats, decoded: Mask, step: int, low: np.float32, high: np.float32, asked: Mask, squares: Mask
) -> None:
    height, width = found.shape
    one = np.float32(1)
    for task in range(cuda.grid(1), found.size, cuda.gridsize(1)):
        y, x = task // width, task % width
        i, j = min(y // step, squares.shape[0] - 1), min(x // step, squares.shape[1] - 1)
        if not asked[i, j]:
            continue
        y0, y1 = i * step, min((i + 1) * step, height - 1)
        x0, x1 = j * step, min((j + 1) * step, width - 1)
        p00, p01, p10, p11 = found[y0, x0], found[y0, x1], found[y1, x0], found[y1, x1]
        if max(max(p00, p01), max(p10, p11)) > low and min(min(p00, p01), min(p10, p11)) < high:
            continue
        if y == y0 and x == x0:
            squares[i, j] = False
        # A corner stays what it is: other threads read it.
        if not decoded[y, x] and not (y in (y0, y1) and x in (x0, x1)):
            down = np.float32(y - y0) / np.float32(max(1, y1 - y0))
            across = np.float32(x - x0) / np.float32(max(1, x1 - x0))
            upper = product(one - across, p00) + product(across, p01)
            lower = product(one - across, p10) + product(across, p11)
            found[y, x] = product(one - down, upper) + product(down, lower)
