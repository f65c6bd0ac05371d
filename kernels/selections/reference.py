"""The definition of the pixels that a refiner decodes, in plain NumPy."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.checks import check_array

Mask = NDArray[np.bool_]


def lattice(size: int, step: int) -> NDArray[np.int64]:
    """0, step, 2 * step, ..., and the last index of an axis of `size`, wherever it falls."""
    return np.append(np.arange(0, size - 1, step), size - 1)


def lattice_points(shape: tuple[int, ...], step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index of the lattice's points in a picture [H, W]: rows [m, 1] and columns [1, n]."""
    return lattice(shape[0], step)[:, None], lattice(shape[1], step)[None]


def strided_rest(flipped: Mask, step: int, out: Mask) -> None:
    """The pixels off the lattice with a decoded neighbour that changed its label.

    The decoded neighbours are the lattice points on either side along each axis, four at most.

    Args:
        flipped: bool [H, W], C-contiguous; whether a lattice point changed; other pixels are not read.
        step: of the lattice; see lattice().
        out: bool [H, W], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or the step is below 1.

    Source: "the last approach" of the source document's chapter 3.1.2.
    """
    check_strided(flipped, step, out)
    rows, columns = (lattice(size, step) for size in flipped.shape)
    on = np.zeros_like(flipped)
    on[np.ix_(rows, columns)] = True
    out[:] = False
    for y_side in ("left", "right"):
        for x_side in ("left", "right"):
            y = rows[np.clip(_beside(rows, flipped.shape[0], y_side), 0, None)]
            x = columns[np.clip(_beside(columns, flipped.shape[1], x_side), 0, None)]
            out |= flipped[np.ix_(y, x)]
    out &= ~on


def _beside(points: NDArray[np.int64], size: int, side: str) -> NDArray[np.int64]:
    """Index of the nearest lattice point at or before ("left"), at or after ("right") every place of an axis."""
    places = np.arange(size)
    if side == "left":
        return np.searchsorted(points, places, side="right") - 1
    return np.searchsorted(points, places, side="left")


def unsettled_squares(before: Mask, after: Mask, step: int, squares: Mask) -> None:
    """Keep those lattice squares in which something may still change.

    A square is settled when its four corners kept their labels and agree, and no pixel in it had another label before.

    Args:
        before: bool [H, W], C-contiguous; labels that came in.
        after: bool [H, W], C-contiguous; labels found so far; read at the corners of the squares looked at.
        step: side of the squares; both edges belong to a square.
        squares: bool [m, n], C-contiguous, one for each square of lattice(H, step) x lattice(W, step); true for those
            to look at, and set to false where settled.

    Raises:
        ValueError: a shape or dtype differs from the above, or the step is below 1.
    """
    check_squares(before, after, step, squares)
    rows, columns = (lattice(size, step) for size in before.shape)
    for i, j in np.argwhere(squares):
        y0, x0 = rows[i], columns[j]
        y1, x1 = rows[min(i + 1, len(rows) - 1)], columns[min(j + 1, len(columns) - 1)]
        within, corners = before[y0 : y1 + 1, x0 : x1 + 1], after[np.ix_((y0, y1), (x0, x1))]
        squares[i, j] = (within != within[0, 0]).any() or (corners != within[0, 0]).any()


def check_strided(flipped: Mask, step: int, out: Mask) -> None:
    """Raise ValueError unless the arguments are as `strided_rest` wants them."""
    check_array("flipped", flipped, np.bool_, (None, None))
    check_array("out", out, np.bool_, flipped.shape)
    if step < 1:
        raise ValueError(f"step {step} is below 1")


def check_squares(before: Mask, after: Mask, step: int, squares: Mask) -> None:
    """Raise ValueError unless the arguments are as `unsettled_squares` wants them."""
    check_array("before", before, np.bool_, (None, None))
    check_array("after", after, np.bool_, before.shape)
    if step < 1:
        raise ValueError(f"step {step} is below 1")
    check_array("squares", squares, np.bool_, squares_of(before.shape, step))


def squares_of(shape: tuple[int, ...], step: int) -> tuple[int, int]:
    """How many squares a picture [H, W] has down and across; one where an axis has a single pixel."""
    return max(1, len(lattice(shape[0], step)) - 1), max(1, len(lattice(shape[1], step)) - 1)
