"""Prompt policies: the points at which SAM is asked.

A policy is a row of POLICIES. `grid` is the source document's. `guided` and `coarse_to_fine` ask at fewer points and
change the answer; maskrt.benchmarks.reports.policies measures the change on held-out scenes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.low_res import Placement
from maskrt.runtime.bundle.specs import SamSpec
from maskrt.runtime.errors import InputError
from maskrt.runtime.sam.candidates import Candidate, Points

SURELY_BACKGROUND = 0.05  # a lower probability of foreground is sure background


@dataclass(frozen=True)
class Grid:
    """The regular points of a picture, or of a crop, from which a policy chooses.

    per_side: points along each side; placement: where the low-res masks lie in the picture; sam: the SAM's sizes.
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
        """Return the points that lie in none of the masks."""
        side, threshold = self.sam.low_res_hw[0], self.sam.mask_threshold
        return points_xy[~inside_any(points_xy, candidates, side, self.placement, threshold)]


Ask = Callable[[Points], list[Candidate]]  # from points in pixels to their masks that pass both gates
Foreground = NDArray[np.float32]  # [H, W], the probability of anything but background


@dataclass(frozen=True)
class PromptPolicy:
    """A rule for where to ask SAM.

    find: maps (ask, grid, foreground) to the candidates. needs_foreground: whether it reads the segmenter's
    probabilities; otherwise foreground may be None.
    """

    find: Callable[[Ask, Grid, Foreground | None], list[Candidate]]
    needs_foreground: bool = False


def _grid(ask: Ask, grid: Grid, foreground: Foreground | None) -> list[Candidate]:
    """Ask at every point."""
    return ask(grid.points_xy)


def _guided(ask: Ask, grid: Grid, foreground: Foreground | None) -> list[Candidate]:
    """Ask where the segmenter sees anything but background."""
    assert foreground is not None  # the mask generator has made sure
    return ask(guided_points(grid.per_side, foreground))


def _coarse_to_fine(ask: Ask, grid: Grid, foreground: Foreground | None) -> list[Candidate]:
    """Ask at every fourth point, then at the other points that lie in no mask yet."""
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
        InputError: there is no policy of this name.
    """
    if name not in POLICIES:
        raise InputError(f"prompts={name}: expected one of {', '.join(POLICIES)}")
    return POLICIES[name]


def point_grid(points_per_side: int) -> Points:
    """Return the centres of n x n equal cells, float64 [n * n, 2], x y in 0 to 1, row by row."""
    offset = 1 / (2 * points_per_side)
    side = np.linspace(offset, 1 - offset, points_per_side)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def guided_points(points_per_side: int, foreground: NDArray[np.float32]) -> Points:
    """Return the grid's points outside sure background, and a point wherever a thin structure passes between them.

    A point is kept when anything in its cell of the grid reaches SURELY_BACKGROUND. A predicted structure is thin where
    a square as wide as a cell does not fit into it. Each cell that it crosses gets a point on it, unless the grid's own
    point is on something thin already.

    Args:
        points_per_side: points along each side of the grid.
        foreground: float32 [H, W], the segmenter's probability of anything but background.

    Returns:
        float64 [N, 2], x y in pixels; the points of the grid come first, row by row.
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
    """Return bool [n * n], true for every second point of every second row of the grid."""
    row, column = np.divmod(np.arange(points_per_side**2), points_per_side)
    coarse: NDArray[np.bool_] = (row % 2 == 0) & (column % 2 == 0)
    return coarse


def inside_any(
    points_xy: Points, candidates: Sequence[Candidate], side: int, placement: Placement, mask_threshold: float
) -> NDArray[np.bool_]:
    """Return bool [N]: whether each point lies in one of the masks, by the low-res value of its cell.

    Args:
        points_xy: float64 [N, 2], in pixels at full size.
        side: side of a low-res mask.
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
    """Return the largest value in each of n x n equal cells; at least one pixel belongs to each."""
    rows, columns = (np.minimum(-(-np.arange(per_side) * side // per_side), side - 1) for side in values.shape)
    peaks: NDArray[np.float32] = np.maximum.reduceat(np.maximum.reduceat(values, rows, axis=0), columns, axis=1)
    return peaks


def _opened(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return bool [H, W]: the pixels covered by squares of side x side pixels that fit into the mask."""
    if side > min(mask.shape):
        return np.zeros_like(mask)
    fits = _box_sums(mask, side) == side * side
    return _box_sums(np.pad(fits, side - 1), side) > 0


def _box_sums(mask: NDArray[np.bool_], side: int) -> NDArray[np.int32]:
    """Return the sum of every window of side x side pixels, int32 [H - side + 1, W - side + 1]."""
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(mask, axis=0, dtype=np.int32, out=total[1:, 1:])
    np.cumsum(total[1:, 1:], axis=1, out=total[1:, 1:])
    sums: NDArray[np.int32] = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return sums
