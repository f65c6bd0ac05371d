"""The definitions of dilation and erosion, in plain NumPy, and the shapes to dilate with."""

import numpy as np

from maskrt.kernels.arrays import Indices, Mask
from maskrt.kernels.checks import check_array


def dilate(points: Mask, reach: Indices, out: Mask) -> None:
    """Mark every pixel that a shape covers when it is laid on a point.

    Args:
        points: bool [H, W], C-contiguous.
        reach: int64 [2 * r + 1], how far each of the shape's rows, from r above to r below, extends on either side.
        out: bool [H, W], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above.
    """
    check_dilate(points, reach, out)
    out[:] = False
    height, width = points.shape
    radius = reach.size // 2
    for y, x in np.argwhere(points):
        for row in range(max(0, y - radius), min(height, y + radius + 1)):
            span = reach[row - y + radius]
            out[row, max(0, x - span) : min(width, x + span + 1)] = True


def erode_cross(mask: Mask, times: int, out: Mask) -> None:
    """Erode with the 3 x 3 cross so many times; all is true beyond the picture, so its border stays.

    Args:
        mask: bool [H, W], C-contiguous.
        times: 0 or more.
        out: bool [H, W], C-contiguous, overwritten; not `mask` itself.

    Raises:
        ValueError: a shape or dtype differs from the above, or times is negative.
    """
    check_erode_cross(mask, times, out)
    out[:] = mask
    for _ in range(times):
        around = np.pad(out, 1, constant_values=True)
        out &= around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]


def contour(mask: Mask) -> Mask:
    """Return the pixels, bool [H, W], that have one of their four neighbours on the other side of the mask."""
    found = np.zeros_like(mask)
    across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found


def disk(radius: int) -> Indices:
    """Return the shape of all pixels within a Euclidean distance, measured between centres."""
    away = np.arange(-radius, radius + 1)
    spans: Indices = np.sqrt(radius**2 - away**2).astype(np.int64)
    return spans


def ellipse(radius: int) -> Indices:
    """Return OpenCV's MORPH_ELLIPSE of side 2 * radius + 1: like disk(), but half spans are rounded, halves to even."""
    away = np.arange(-radius, radius + 1)
    scale = 1 / radius**2 if radius else 0.0
    spans: Indices = np.rint(radius * np.sqrt((radius**2 - away**2) * scale)).astype(np.int64)
    return spans


def check_dilate(points: Mask, reach: Indices, out: Mask) -> None:
    """Raise ValueError unless the arguments are as `dilate` wants them."""
    check_array("points", points, np.bool_, (None, None))
    check_array("out", out, np.bool_, points.shape)
    check_array("reach", reach, np.int64, (None,))
    if reach.size % 2 == 0 or reach.min() < 0:
        raise ValueError(f"reach has {reach.size} rows: expected an odd number of them, none negative")


def check_erode_cross(mask: Mask, times: int, out: Mask) -> None:
    """Raise ValueError unless the arguments are as `erode_cross` wants them."""
    check_array("mask", mask, np.bool_, (None, None))
    check_array("out", out, np.bool_, mask.shape)
    if times < 0:
        raise ValueError(f"times is {times}: expected 0 or more erosions")
