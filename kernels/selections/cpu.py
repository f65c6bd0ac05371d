"""The pixels that a refiner decodes, in Numba, one thread: all of it is small beside the decoding."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.jit import kernel
from maskrt.kernels.selections.reference import Mask, check_band, check_squares, check_strided, contour

Indices = NDArray[np.int64]


def contour_band(mask: Mask, radius: int, out: Mask) -> None:
    """The pixels within a distance of the mask's contour.

    Args:
        mask: bool [H, W], C-contiguous.
        radius: pixels, Euclidean, between centres; 0 for the contour alone.
        out: bool [H, W], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or the radius is negative.

    Source: reference.contour_band is the definition.
    """
    check_band(mask, radius, out)
    away = np.arange(-radius, radius + 1)
    reach = np.sqrt(radius**2 - away**2).astype(np.int64)  # of the disk's row at this distance above or below
    starts = np.zeros((mask.shape[0], mask.shape[1] + 1), np.int32)
    _open_spans(contour(mask), reach, starts)
    np.cumsum(starts, axis=1, out=starts)
    np.greater(starts[:, :-1], 0, out=out)


def strided_rest(flipped: Mask, step: int, out: Mask) -> None:
    """The pixels off the lattice with a decoded neighbour that changed its label.

    Args:
        flipped: bool [H, W], C-contiguous; whether a lattice point changed; other pixels are not read.
        step: of the lattice; see reference.lattice().
        out: bool [H, W], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or the step is below 1.

    Source: reference.strided_rest is the definition.
    """
    check_strided(flipped, step, out)
    _strided_rest(flipped, step, out)


def unsettled_squares(before: Mask, after: Mask, step: int, squares: Mask) -> None:
    """Keep those lattice squares in which something may still change.

    Args:
        before: bool [H, W], C-contiguous; labels that came in.
        after: bool [H, W], C-contiguous; labels found so far; read at the corners of the squares looked at.
        step: side of the squares; both edges belong to a square.
        squares: bool [m, n], C-contiguous; true for those to look at, and set to false where settled.

    Raises:
        ValueError: a shape or dtype differs from the above, or the step is below 1.

    Source: reference.unsettled_squares is the definition.
    """
    check_squares(before, after, step, squares)
    _unsettled_squares(before, after, step, squares)


@kernel
def _open_spans(edges: Mask, reach: Indices, starts: NDArray[np.int32]) -> None:
    """Of every disk's every row: + 1 where it begins, - 1 behind its end."""
    height, width = edges.shape
    radius = reach.size // 2
    for y in range(height):
        for x in range(width):
            if not edges[y, x]:
                continue
            for row in range(max(0, y - radius), min(height, y + radius + 1)):
                span = reach[row - y + radius]
                starts[row, max(0, x - span)] += 1
                starts[row, min(width, x + span + 1)] -= 1


@kernel
def _strided_rest(flipped: Mask, step: int, out: Mask) -> None:
    height, width = flipped.shape
    for y in range(height):
        y0 = y if y == height - 1 else y // step * step
        y1 = y0 if y0 == y else min(y0 + step, height - 1)
        for x in range(width):
            x0 = x if x == width - 1 else x // step * step
            x1 = x0 if x0 == x else min(x0 + step, width - 1)
            off = y0 != y or x0 != x
            out[y, x] = off and (flipped[y0, x0] or flipped[y0, x1] or flipped[y1, x0] or flipped[y1, x1])


@kernel
def _unsettled_squares(before: Mask, after: Mask, step: int, squares: Mask) -> None:
    height, width = before.shape
    for i in range(squares.shape[0]):
        y0, y1 = i * step, min((i + 1) * step, height - 1)
        for j in range(squares.shape[1]):
            if not squares[i, j]:
                continue
            x0, x1 = j * step, min((j + 1) * step, width - 1)
            label = before[y0, x0]
            changes = after[y0, x0] != label or after[y0, x1] != label
            changes = changes or after[y1, x0] != label or after[y1, x1] != label
            y = y0
            while y <= y1 and not changes:
                for x in range(x0, x1 + 1):
                    changes |= before[y, x] != label
                y += 1
            squares[i, j] = changes
