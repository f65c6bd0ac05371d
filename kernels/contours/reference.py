"""The definition of an outer contour: holes are filled first, then each region is walked around, in plain Python."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Mask
from maskrt.kernels.checks import check_array

# Neighbours (dy, dx) in the order in which they are tried: against the clock on the screen, where y points down.
AROUND = ((0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1))


def outer_contours(mask: Mask) -> list[NDArray[np.int32]]:
    """Return the pixels along the outline of every 8-connected region that lies in no hole of another.

    Args:
        mask: bool [H, W], C-contiguous.

    Returns:
        One int32 [N, 2] per region: x and y of border pixels, in the order of a walk that begins at the region's first
        pixel and has the region on its left; a pixel that is passed twice is listed twice. Regions come in the order of
        their first pixels.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: cv2.findContours with RETR_EXTERNAL and CHAIN_APPROX_NONE gives the same walks, in another order.
    """
    check_array("mask", mask, np.bool_, (None, None))
    filled = ~_outside(np.pad(mask, 1))
    contours = []
    for y, x in np.argwhere(filled).tolist():
        if filled[y, x]:
            contour = _walk(filled, y, x)
            contours.append(np.array(contour, np.int32)[:, ::-1] - 1)
            _erase(filled, y, x)
    return contours


def _outside(padded: Mask) -> Mask:
    """Return the background that is 4-connected to the border."""
    outside = np.zeros_like(padded)
    outside[0, 0] = True
    todo = [(0, 0)]
    for y, x in todo:  # grows while it is read
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= near[0] < padded.shape[0] and 0 <= near[1] < padded.shape[1]
            if inside and not padded[near] and not outside[near]:
                outside[near] = True
                todo.append(near)
    return outside


def _walk(filled: Mask, y: int, x: int) -> list[tuple[int, int]]:
    """Return border pixels (y, x) from a region's first pixel on, until the first step would be made again."""
    contour = [(y, x)]
    first = _step(filled, y, x, 0)
    if first is None:
        return contour
    direction = first
    while True:
        dy, dx = AROUND[direction]
        y, x = y + dy, x + dx
        # The search for the next pixel starts just after the one that the walk came from.
        following = _step(filled, y, x, direction + 5)
        assert following is not None  # there is a way back
        if (y, x) == contour[0] and following == first:
            return contour
        contour.append((y, x))
        direction = following


def _step(filled: Mask, y: int, x: int, start: int) -> int | None:
    """Return the first direction, from `start` on, in which there is foreground."""
    for turn in range(8):
        dy, dx = AROUND[(start + turn) % 8]
        if filled[y + dy, x + dx]:
            return (start + turn) % 8
    return None


def _erase(filled: Mask, y: int, x: int) -> None:
    """Remove the 8-connected region of a pixel."""
    filled[y, x] = False
    todo = [(y, x)]
    for y, x in todo:
        for dy, dx in AROUND:
            if filled[y + dy, x + dx]:
                filled[y + dy, x + dx] = False
                todo.append((y + dy, x + dx))
