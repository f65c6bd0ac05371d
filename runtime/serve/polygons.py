"""Turns masks into polygons as X-AnyLabeling draws them: through the centres of border pixels, without holes."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.contours import outer_contours

Points = NDArray[np.int32]
MOST_PX = 1.0  # the largest distance of a border pixel from its polygon
LEAST_SHARE = 0.2  # polygons below this share of the mean area are left out, as X-AnyLabeling's own models do


def polygons(mask: NDArray[np.bool_], epsilon_factor: float) -> list[Points]:
    """Return the simplified outlines of a mask's regions.

    Holes are filled, which also covers regions inside them. Regions with fewer than three corners after the
    simplification have no area and are left out, like regions of less than a fifth of the mean area.

    Args:
        mask: bool [H, W].
        epsilon_factor: the tolerance as a share of the outline's length, as X-AnyLabeling sends it; the tolerance is
            at most 1 pixel.

    Returns:
        One int32 [N, 2] per region: x and y, anticlockwise on the screen; the last point does not repeat the first.
    """
    found = []
    for contour in outer_contours(np.ascontiguousarray(mask)):
        steps = np.diff(contour, axis=0, append=contour[:1])
        tolerance_px = min(MOST_PX, epsilon_factor * float(np.hypot(steps[:, 0], steps[:, 1]).sum()))
        found.append(simplified(contour, tolerance_px))
    found = [polygon for polygon in found if len(polygon) > 2]
    areas = np.array([_area(polygon) for polygon in found])
    return [polygon for polygon, area in zip(found, areas, strict=True) if area > LEAST_SHARE * areas.mean()]


def simplified(contour: Points, tolerance_px: float) -> Points:
    """Return the corners of a closed outline whose connecting lines lie within a distance of all its points.

    Args:
        contour: int32 [N, 2], x and y.

    Source: Douglas and Peucker 1973, starting from the first point and the one farthest from it.
    """
    closed = np.concatenate([contour, contour[:1]]).astype(np.float64)
    kept = np.zeros(len(closed), np.bool_)
    far = int(_distances(closed, 0, len(closed) - 1).argmax()) + 1 if len(contour) > 1 else 0
    kept[[0, far]] = True
    parts = [(0, far), (far, len(closed) - 1)]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        distances = _distances(closed, first, last)
        middle = first + 1 + int(distances.argmax())
        if distances[middle - first - 1] > tolerance_px:
            kept[middle] = True
            parts += [(first, middle), (middle, last)]
    return contour[kept[:-1]]


def _distances(points: NDArray[np.float64], first: int, last: int) -> NDArray[np.float64]:
    """Return how far the points between two others are from the line segment that joins these."""
    start, along = points[first], points[last] - points[first]
    inner = points[first + 1 : last] - start
    length = float(along @ along)
    # Along the line but never past its ends: with the infinite line, a spike beyond an end would vanish.
    share = np.clip(inner @ along / length, 0, 1)[:, None] if length else 0.0
    apart = inner - share * along
    distances: NDArray[np.float64] = np.hypot(apart[:, 0], apart[:, 1])
    return distances


def _area(polygon: Points) -> float:
    x, y = polygon.astype(np.float64).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
