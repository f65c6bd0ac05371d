"""Where SAM is asked: on a grid, or at fewer and better points of it.

A policy is a row of POLICIES. `grid` is the source document. `guided` and `coarse_to_fine` ask less and change the
answer; what they change is measured on held-out scenes (maskrt.benchmarks.reports.policies).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.low_res import Placement
from maskrt.runtime.bundle.specs import SamSpec
from maskrt.runtime.errors import InputError
from maskrt.runtime.sam.candidates import Candidate, Points

SURELY_BACKGROUND = 0.05  # a probability of foreground below this


@dataclass(frozen=True)
class Grid:
    """The points that a picture, or a crop of it, is asked at unless a policy knows better.

    per_side: points along each side; placement: where the low-res masks lie in the picture; sam: sizes of the SAM.
    """

    per_side: int
    placement: Placement
    sam: SamSpec

    @property
    def points_xy(self) -> Points:
        """All points, float64 [n * n, 2], x y in pixels, row by row."""
        points_xy: Points = point_grid(self.per_side) * np.array(self.placement.size_hw[::-1])
        return points_xy

    def outside(self, points_xy: Points, candidates: Sequence[Candidate]) -> Points:
        """The points that lie in none of the masks."""
        side, threshold = self.sam.low_res_hw[0], self.sam.mask_threshold
        return points_xy[~inside_any(points_xy, candidates, side, self.placement, threshold)]


Ask = Callable[[Points], list[Candidate]]  # the masks that pass both gates, of points in pixels
Foreground = NDArray[np.float32]  # [H, W], the probability of anything but background


@dataclass(frozen=True)
class PromptPolicy:
    """Where SAM is asked.

    find: from (ask, grid, foreground) to the candidates. needs_foreground: whether it reads the segmenter's
    probabilities; else foreground may be None.
    """

    find: Callable[[Ask, Grid, Foreground | None], list[Candidate]]
    needs_foreground: bool = False


def _grid(ask: Ask, grid: Grid, foreground: Foreground | None) -> list[Candidate]:
    """Every point."""
    return ask(grid.points_xy)


def _guided(ask: Ask, grid: Grid, foreground: Foreground | None) -> list[Candidate]:
    """Where the segmenter sees anything but background."""
    assert foreground is not None  # the mask generator has made sure
    return ask(guided_points(grid.per_side, foreground))


def _coarse_to_fine(ask: Ask, grid: Grid, foreground: Foreground | None) -> list[Candidate]:
    """Every fourth point, then those of the others that lie in no mask yet."""
    points_xy, coarse = grid.points_xy, coarse_points(grid.per_side)
    candidates = ask(points_xy[coarse])
    return candidates + ask(grid.outside(points_xy[~coarse], candidates))


POLICIES: dict[str, PromptPolicy] = {
    "grid": PromptPolicy(_grid),
    "guided": PromptPolicy(_guided, needs_foreground=True),
    "coarse_to_fine": PromptPolicy(_coarse_to_fine),
}


def policy_of(name: str) -> PromptPolicy:
    """Return a policy by its name.

    Raises:
        InputError: there is none of this name.
    """
    if name not in POLICIES:
        raise InputError(f"prompts={name}: expected one of {', '.join(POLICIES)}")
    return POLICIES[name]


def point_grid(points_per_side: int) -> Points:
    """float64 [n * n, 2], x y in 0 to 1, row by row: the centres of n x n equal cells."""
    offset = 1 / (2 * points_per_side)
    side = np.linspace(offset, 1 - offset, points_per_side)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def guided_points(points_per_side: int, foreground: NDArray[np.float32]) -> Points:
    """The points of the grid but for those in sure background, and one wherever a thin structure passes between them.

    A point is kept when anything in its cell of the grid reaches SURELY_BACKGROUND. Thin is what the segmenter predicts
    and a square as wide as a cell does not fit into: a cell that it crosses gets a point on it, unless the grid's own
    point is on something thin already.

    Args:
        points_per_side: of the grid.
        foreground: float32 [H, W], the segmenter's probability of anything but background.

    Returns:
        float64 [N, 2], x y in pixels: those of the grid first, row by row.
    """
    height, width = foreground.shape
    grid = point_grid(points_per_side) * np.array([width, height])
    column, row = grid.astype(np.int64).T
    # On tiny frames a point can lie beside its cell, whose edges are rounded to pixels.
    likeliest = np.maximum(_cell_peaks(foreground, points_per_side).ravel(), foreground[row, column])
    near = grid[likeliest >= SURELY_BACKGROUND]
    spacing = max(1, min(height, width) // points_per_side)
    predicted = foreground > 0.5
    thin = predicted & ~_opened(predicted, spacing)
    y, x = np.nonzero(thin)
    cell = y * points_per_side // height * points_per_side + x * points_per_side // width
    order = np.lexsort((-foreground[y, x], cell))  # the most probable pixel of each cell first
    first = order[np.unique(cell[order], return_index=True)[1]]
    missed = first[~thin[row, column][cell[first]]]
    return np.concatenate([near, np.stack([x[missed], y[missed]], axis=1) + 0.5])


def coarse_points(points_per_side: int) -> NDArray[np.bool_]:
    """Bool [n * n]: every second point of every second row of the grid."""
    row, column = np.divmod(np.arange(points_per_side**2), points_per_side)
    coarse: NDArray[np.bool_] = (row % 2 == 0) & (column % 2 == 0)
    return coarse


def inside_any(
    points_xy: Points, candidates: Sequence[Candidate], side: int, placement: Placement, mask_threshold: float
) -> NDArray[np.bool_]:
    """Bool [N]: the point lies in one of the masks, judged by the low-res value of its cell.

    Args:
        points_xy: float64 [N, 2], in pixels at full size.
        side: of a low-res mask.
    """
    covered = np.zeros((side, side), np.bool_)
    for candidate in candidates:
        window = candidate.window
        height, width = window.values.shape
        part = covered[window.row : window.row + height, window.column : window.column + width]
        part |= window.values > np.float32(mask_threshold)
    (height, width), (input_height, input_width) = placement.size_hw, placement.input_hw
    scale = np.array([input_width / width, input_height / height]) * (side / placement.square)
    column, row = np.minimum((points_xy * scale).astype(np.int64), side - 1).T
    inside: NDArray[np.bool_] = covered[row, column]
    return inside


def _cell_peaks(values: NDArray[np.float32], per_side: int) -> NDArray[np.float32]:
    """Largest value in each of n x n equal cells; at least one pixel belongs to each."""
    rows, columns = (np.minimum(-(-np.arange(per_side) * side // per_side), side - 1) for side in values.shape)
    peaks: NDArray[np.float32] = np.maximum.reduceat(np.maximum.reduceat(values, rows, axis=0), columns, axis=1)
    return peaks


def _opened(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """What squares of side x side pixels that fit into the mask cover, bool [H, W]."""
    if side > min(mask.shape):
        return np.zeros_like(mask)
    fits = _box_sums(mask, side) == side * side
    return _box_sums(np.pad(fits, side - 1), side) > 0


def _box_sums(mask: NDArray[np.bool_], side: int) -> NDArray[np.int32]:
    """Sums over every window of side x side pixels, int32 [H - side + 1, W - side + 1]."""
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(mask, axis=0, dtype=np.int32, out=total[1:, 1:])
    np.cumsum(total[1:, 1:], axis=1, out=total[1:, 1:])
    sums: NDArray[np.int32] = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return sums
