"""Selections: which pixels a refiner decodes in a tile of a picture.

A pixel that is neither decoded nor filled keeps its old value. `full` decodes all pixels; the others change the answer
a little:

- bbox: the boxes around the rough mask's regions, widened by a quarter.
- contour: a band around the rough mask's contour.
- strided:N: every Nth pixel of every Nth row. A square whose four corners are sure of the same answer is interpolated
  between them; all pixels of the other squares are decoded.
- adaptive: every 4th pixel of every 4th row; then squares of 4 and of 2 are divided unless their corners are sure of
  the same answer. From the second stage on, only near what the stage before left uncertain, as far as four of its
  features reach.

Source: "CRM compression and acceleration" of the document on refinement. There, a pixel between lattice points that
kept their labels keeps its old value. The next stage then starts from single decoded pixels among old ones, which cost
3 points of IoU on held-out scenes; so here the pixel is interpolated between the lattice points. adaptive is ours.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats, Mask
from maskrt.kernels.morphology.reference import contour, disk
from maskrt.kernels.selections.reference import lattice_points, squares_of
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.errors import InputError

MARGIN = 0.02  # a probability this near to 0 or 1 is sure
BAND = 0.02  # radius of the band around the contour, as a share of the mean side
CELLS = 4  # radius of the band around what a stage left uncertain, in cells of its features
WIDEN = 0.25  # how much a box is widened, as a share of its side
LEAST = 16  # pixels by which band and boxes reach out at least


@dataclass
class Tile:
    """A part of the picture that is decoded at once.

    found: float32 [h, w], probabilities; the old values, until they are decoded or filled. own: the rows and columns
    that this tile is responsible for; around them lie the lattice points that its pixels need.
    """

    found: Floats
    own: tuple[slice, slice]
    decode: Callable[[NDArray[np.int64]], Floats]
    decoded: int = 0

    def take(self, wanted: Mask) -> None:
        """Decode the true pixels of a bool [h, w]."""
        pixels = np.flatnonzero(wanted)
        self.found.reshape(-1)[pixels] = self.decode(pixels)
        self.decoded += int(np.count_nonzero(wanted[self.own]))

    def owned(self) -> Mask:
        """Return bool [h, w], true for the tile's own pixels."""
        own = np.zeros(self.found.shape, np.bool_)
        own[self.own] = True
        return own


class Selection:
    """A rule for which pixels of a tile are decoded; this one, `full`, decodes all.

    step: step of the lattice to which tiles are aligned. lead: pixels above and to the left of a tile that affect it.
    """

    step = 1
    lead = 0

    def __init__(self, kernels: KernelSet) -> None:
        self.kernels = kernels

    def limits(self, rough: Mask, current: Floats, scale: float | None) -> Mask | None:
        """Return the pixels outside of which a stage decodes nothing, bool [H, W]; None means no limit.

        Args:
            rough: bool [H, W], the rough mask.
            current: float32 [H, W], the probabilities from which the stage starts.
            scale: scale of the stage before, None for the first.
        """
        return None

    def band(self, points: Mask, radius: int) -> Mask:
        """Return the pixels within a distance of some points."""
        band = np.empty_like(points)
        self.kernels.dilate(points, disk(max(LEAST, radius)), band)
        return band

    def decode(self, tile: Tile, limits: Mask | None) -> None:
        """Decode the tile's own pixels, within limits of the same shape."""
        tile.take(tile.owned() if limits is None else tile.owned() & limits)


class BoxSelection(Selection):
    """The selection `bbox`: boxes around the rough mask's regions."""

    def limits(self, rough: Mask, current: Floats, scale: float | None) -> Mask:
        """Return widened boxes around the rough mask's 8-connected regions."""
        limits = np.zeros_like(rough)
        for y0, x0, y1, x1 in self.kernels.region_boxes(rough):
            down, across = (max(LEAST, round(WIDEN / 2 * (end - start))) for start, end in ((y0, y1), (x0, x1)))
            limits[max(0, y0 - down) : y1 + down, max(0, x0 - across) : x1 + across] = True
        return limits


class ContourSelection(Selection):
    """The selection `contour`: a band around the rough mask's contour."""

    def limits(self, rough: Mask, current: Floats, scale: float | None) -> Mask:
        """Return a band around the rough mask's contour."""
        return self.band(contour(rough), round(BAND * sum(rough.shape) / 2))


class StridedSelection(Selection):
    """The selection `strided:N`, and what `adaptive` shares with it."""

    def __init__(self, kernels: KernelSet, *steps: int) -> None:
        """Take the sides of the squares, from the coarsest on, each a multiple of the next."""
        super().__init__(kernels)
        self.step = steps[0]
        self._steps = (*steps, 1)

    def decode(self, tile: Tile, limits: Mask | None) -> None:
        """Decode the coarsest lattice, then level by level the squares that are not settled."""
        shape = tile.found.shape
        squares = np.ones(squares_of(shape, self.step), np.bool_)
        if limits is not None:
            squares = _touched(limits, self.step, squares.shape)
        decoded = np.zeros(shape, np.bool_)
        for step, finer in pairwise(self._steps):
            points = np.zeros(shape, np.bool_)
            at = lattice_points(shape, step)
            points[at] = _corners(squares)[: len(at[0]), : at[1].shape[1]]
            tile.take(points & ~decoded)
            decoded |= points
            self.kernels.settle_squares(tile.found, decoded, step, MARGIN, squares)
            rows, columns = squares_of(shape, finer)
            squares = squares.repeat(step // finer, axis=0).repeat(step // finer, axis=1)[:rows, :columns].copy()
        # Squares of one pixel, and the tile's last row and column, which belong to the last of them.
        missing = [(0, size - count) for size, count in zip(shape, squares.shape, strict=True)]
        tile.take(np.pad(squares, missing, mode="edge") & ~decoded & tile.owned())


class AdaptiveSelection(StridedSelection):
    """The selection `adaptive`: squares of 4, then of 2, near what the stage before left uncertain."""

    def __init__(self, kernels: KernelSet) -> None:
        super().__init__(kernels, 4, 2)
        self.lead = self.step  # squares share edges: the square before may be divided where the next one is settled

    def limits(self, rough: Mask, current: Floats, scale: float | None) -> Mask | None:
        """Return a band around what the stage before left uncertain."""
        if scale is None:
            return None
        uncertain = contour(current > 0.5) | ((current > MARGIN) & (current < 1 - MARGIN))
        return self.band(uncertain, round(CELLS * 2 / scale))


SELECTIONS: dict[str, Callable[..., Selection]] = {
    "full": Selection,
    "bbox": BoxSelection,
    "contour": ContourSelection,
    "strided": StridedSelection,
    "adaptive": AdaptiveSelection,
}


def selection_of(text: str, kernels: KernelSet) -> Selection:
    """Return a selection by its name, such as "strided:4".

    Raises:
        InputError: the name is unknown, or the stride is out of range.
    """
    match = re.fullmatch(r"([a-z]+)(?::(\d+))?", text)
    if match is None or match[1] not in SELECTIONS or (match[1] == "strided") != (match[2] is not None):
        raise InputError(f"select {text!r}: expected full, bbox, contour, strided:N (such as strided:4) or adaptive")
    if match[2] is None:
        return SELECTIONS[match[1]](kernels)
    step = int(match[2])
    if not 2 <= step <= 64:
        raise InputError(f"select {text}: the stride must be 2 to 64")
    return SELECTIONS[match[1]](kernels, step)


def _touched(limits: Mask, step: int, squares: tuple[int, int]) -> Mask:
    """Return bool [m, n], true for the lattice squares with a pixel within the limits."""
    rows, columns = (np.arange(count) * step for count in squares)
    down = np.logical_or.reduceat(limits, rows, axis=0)
    return np.logical_or.reduceat(down, columns, axis=1)


def _corners(squares: Mask) -> Mask:
    """Return bool [m + 1, n + 1], true for the lattice points at the corners of true squares, bool [m, n]."""
    points = np.zeros((squares.shape[0] + 1, squares.shape[1] + 1), np.bool_)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            points[rows, columns] |= squares
    return points
