"""Outer contours by border following: one pass over the picture, and one walk along each outline."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Mask
from maskrt.kernels.checks import check_array
from maskrt.kernels.jit import kernel

Points = NDArray[np.int32]
# What becomes of a border pixel: PASSED, or EDGE where there is background on its right.
PASSED, EDGE = 2, -2


def outer_contours(mask: Mask) -> list[Points]:
    """Return the pixels along the outline of every 8-connected region that lies in no hole of another.

    Args:
        mask: bool [H, W], C-contiguous.

    Returns:
        One int32 [N, 2] per region: x and y of border pixels, in the order of a walk that begins at the region's first
        pixel and has the region on its left; a pixel that is passed twice is listed twice. Regions come in the order of
        their first pixels.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: reference.outer_contours is the definition; Suzuki and Abe 1985, appendix II, is the method.
    """
    check_array("mask", mask, np.bool_, (None, None))
    marks = np.pad(mask, 1).astype(np.int8)
    points, stops = _follow_all(marks)
    return np.split(points, stops[:-1]) if stops.size else []


@kernel
def _follow_all(marks: NDArray[np.int8]) -> tuple[Points, NDArray[np.int64]]:
    """Return all outlines one after the other, and where each ends; marks [H + 2, W + 2], 0 or 1, is overwritten."""
    points = np.empty((1024, 2), np.int32)
    stops = np.empty(64, np.int64)
    count = regions = 0
    for y in range(1, marks.shape[0] - 1):
        last = 0  # mark of the border passed last in this row: EDGE and 0 say that this is outside of all regions
        for x in range(1, marks.shape[1] - 1):
            if marks[y, x] == 1 and marks[y, x - 1] == 0 and last != PASSED:
                points, count = _follow(marks, y, x, points, count)
                if regions == stops.size:
                    stops = np.append(stops, np.empty_like(stops))
                stops[regions] = count
                regions += 1
            if marks[y, x] != 0 and marks[y, x] != 1:
                last = marks[y, x]
    return points[:count], stops[:regions]


@kernel
def _follow(marks: NDArray[np.int8], y: int, x: int, points: Points, count: int) -> tuple[Points, int]:
    """Follow one outline from its first pixel on; mark its pixels, and append them to points[:count]."""
    step_y = np.array([0, 1, 1, 1, 0, -1, -1, -1])
    step_x = np.array([-1, -1, 0, 1, 1, 1, 0, -1])
    start_y, start_x = y, x
    first, direction = -1, 0
    while True:
        found, right = -1, False
        for turn in range(8):
            look = (direction + turn) % 8
            if marks[y + step_y[look], x + step_x[look]] != 0:
                found = look
                break
            right |= look == 4
        if right:
            marks[y, x] = EDGE
        elif marks[y, x] == 1:
            marks[y, x] = PASSED
        if found == first >= 0 and y == start_y and x == start_x:
            return points, count
        if count == points.shape[0]:
            points = np.concatenate((points, np.empty_like(points)))
        points[count, 0], points[count, 1] = x - 1, y - 1
        count += 1
        if found < 0:
            return points, count
        if first < 0:
            first = found
        y, x = y + step_y[found], x + step_x[found]
        direction = found + 5
