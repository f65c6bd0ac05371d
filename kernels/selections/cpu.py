"""The pixels that a refiner decodes, in Numba, one thread: all of it is small beside the decoding."""

from maskrt.kernels.jit import kernel
from maskrt.kernels.selections.reference import Mask, check_squares, check_strided


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
