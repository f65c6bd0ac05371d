"""The definition of which pixels a refiner decodes, in plain NumPy."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats, Mask
from maskrt.kernels.checks import check_array


def lattice(size: int, step: int) -> NDArray[np.int64]:
    """Return 0, step, 2 * step, ..., and the last index of an axis of `size`, wherever it falls."""
    return np.append(np.arange(0, size - 1, step), size - 1)


def lattice_points(shape: tuple[int, ...], step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return an index of the lattice's points in a picture [H, W]: rows [m, 1] and columns [1, n]."""
    return lattice(shape[0], step)[:, None], lattice(shape[1], step)[None]


def settle_squares(found: Floats, decoded: Mask, step: int, margin: float, squares: Mask) -> None:
    """Fill the lattice squares whose corners agree, and keep the others to be divided.

    A square is settled when its four corners are all within `margin` of 0, or all within `margin` of 1. Its pixels that
    are not decoded are then interpolated bilinearly between the corners. A square owns its first row and column; its
    last ones belong to the next square. The last square of an axis owns both.

    Args:
        found: float32 [H, W], C-contiguous, probabilities; read at the corners of the squares looked at, and filled.
        decoded: bool [H, W], C-contiguous; pixels that are not to be filled.
        step: side of the squares; see lattice().
        margin: 0 to 0.5.
        squares: bool [m, n], C-contiguous, see squares_of(); true for those to look at, and set to false where settled.

    Raises:
        ValueError: a shape or dtype differs from the above, the step is below 1, or the margin is not 0 to 0.5.
    """
    check_squares(found, decoded, step, margin, squares)
    rows, columns = (lattice(size, step) for size in found.shape)
    low, high = np.float32(margin), np.float32(1 - margin)
    for i, j in np.argwhere(squares):
        (y0, y1, bottom), (x0, x1, right) = (square_edges(*at) for at in ((i, rows), (j, columns)))
        corners = found[np.ix_((y0, y1), (x0, x1))]
        if (corners > low).any() and (corners < high).any():
            continue
        squares[i, j] = False
        down = np.arange(bottom - y0, dtype=np.float32)[:, None] / np.float32(max(1, y1 - y0))
        across = np.arange(right - x0, dtype=np.float32)[None] / np.float32(max(1, x1 - x0))
        upper, lower = ((1 - across) * row[0] + across * row[1] for row in corners)
        filled = (1 - down) * upper + down * lower
        np.copyto(found[y0:bottom, x0:right], filled, where=~decoded[y0:bottom, x0:right])


def square_edges(index: int, points: NDArray[np.int64]) -> tuple[int, int, int]:
    """Return the first and last lattice point of a square on an axis, and where its own pixels end."""
    last = int(points[min(index + 1, len(points) - 1)])
    return int(points[index]), last, last + 1 if index + 2 >= len(points) else last


def check_squares(found: Floats, decoded: Mask, step: int, margin: float, squares: Mask) -> None:
    """Raise ValueError unless the arguments are as `settle_squares` wants them."""
    check_array("found", found, np.float32, (None, None))
    check_array("decoded", decoded, np.bool_, found.shape)
    if step < 1:
        raise ValueError(f"step {step} is below 1")
    if not 0 <= margin <= 0.5:
        raise ValueError(f"margin {margin} is not within 0 and 0.5")
    check_array("squares", squares, np.bool_, squares_of(found.shape, step))


def squares_of(shape: tuple[int, ...], step: int) -> tuple[int, int]:
    """Return how many squares a picture [H, W] has down and across; one where an axis has a single pixel."""
    return max(1, len(lattice(shape[0], step)) - 1), max(1, len(lattice(shape[1], step)) - 1)
