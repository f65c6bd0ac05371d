"""The sizes at which a refiner's graphs run."""

from collections.abc import Callable

from maskrt.runtime.bundle.specs import RefinementSpec
from maskrt.runtime.engines.axes import Inputs, Range
from maskrt.runtime.pipelines.refine.stage import LEAST_TILE, STRIDE
from maskrt.runtime.pipelines.refine.tiles import BACKBONE_TILES

MAX_STEP = 64  # largest N of the selection strided:N


def backbone_inputs(settings: RefinementSpec, halo: int) -> Inputs:
    """Return the sides of the backbone's windows."""
    largest = backbone_side(settings, halo)
    sides: Range = (1, largest // 2, largest)
    return {"pixels": {2: sides, 3: sides}}


def coarse_inputs(settings: RefinementSpec) -> Inputs:
    """Return the sides of the coarsest features: one for four cells, and neighbours on both sides."""
    sides = _ranged(settings, lambda cells: -(-cells // 4) + 3)
    return {"coarse": {2: (1, *sides[1:]), 3: (1, *sides[1:])}}


def fusion_inputs(settings: RefinementSpec) -> Inputs:
    """Return the sides of a tile's picture, mask and features."""
    pixels, padded, cells = (_ranged(settings, size) for size in (lambda m: 2 * m + 9, lambda m: m + 2, lambda m: m))
    return {
        "pixels": {2: pixels, 3: pixels},
        "inside": {2: padded, 3: padded},
        "middle": {2: padded, 3: padded},
        "coarse": {2: cells, 3: cells},
    }


def backbone_side(settings: RefinementSpec, halo: int) -> int:
    """Return the longest side of a window that the backbone gets, in pixels.

    A window is either cut from the picture and has halos, or it is a whole picture, a little larger (backbone_tile).
    """
    window = BACKBONE_TILES * settings.tile
    return max(window * 5 // 4, -(-window // STRIDE) * STRIDE + 2 * halo)


def cells_side(settings: RefinementSpec) -> int:
    """Return the most cells along a side that a tile reads, whatever the selection.

    They are half of its pixels, which are rounded up to the selection's step and may begin a step earlier.
    """
    return -(-(max(settings.tile, LEAST_TILE) + MAX_STEP) // 2) + 3


def _ranged(settings: RefinementSpec, size: Callable[[int], int]) -> Range:
    """Return the range of a size that depends on a tile's cells; the usual tile is a whole one at full scale."""
    return size(1), size(settings.tile // 2 + 1), size(cells_side(settings))
