"""How a picture is cut for refinement, and what memory that takes."""

from collections.abc import Iterator
from dataclasses import dataclass

from maskrt.runtime.errors import InputError

TILES = (384, 256, 192, 128, 96, 64)  # pixels of a side
BACKBONE_TILES = 6  # sides of a tile that a window of the backbone has; it may be a quarter larger, not to be halved
# At ResNet-50's width, from peaks that were measured, over several pictures in one process.
BYTES_PER_CELL = 7000  # of the fusion, whose graphs keep their memory between tiles
BYTES_PER_PIXEL = 400  # of the backbone in its window
BASE_MB = 320  # the process with its models


@dataclass(frozen=True)
class Span:
    """Places begin to end - 1 of an axis, and first to last - 1 that have to be read for them."""

    begin: int
    end: int
    first: int
    last: int


def spans(size: int, tile: int, halo: int = 0, step: int = 1) -> Iterator[Span]:
    """Cut an axis into parts of nearly equal length that begin at multiples of `step`, at most `tile` long rounded up.

    Args:
        halo: places around a part that it reads as well, where they exist.
    """
    length = _divided_up(_divided_up(size, _divided_up(size, tile)), step) * step
    for begin in range(0, size, length):
        end = min(begin + length, size)
        yield Span(begin, end, max(0, begin - halo), min(size, end + halo))


def backbone_tile(size: int, tile: int) -> int:
    """Side of the backbone's windows along an axis: a window a little too large is better than two with halos."""
    window = BACKBONE_TILES * tile
    return size if size <= window * 5 // 4 else window


def needed_mb(size_hw: tuple[int, int], tile: int, width: int, halo: int) -> float:
    """Peak memory of the process in MB (10^6 bytes), by the counts above; `width` scales the network's part."""
    height, across = size_hw
    share = width / 64
    pixels = height * across
    # Picture, two masks, and the two coarser scales; beside the backbone's window lies what the last tile has left.
    held = pixels * (3 + 2 * 4 + 24 * share)
    window = 1.0
    for size in size_hw:
        side = backbone_tile(size, tile)
        window *= min(size, _divided_up(size, _divided_up(size, side)) + 2 * halo)
    cells = (tile // 2 + 4) ** 2
    return BASE_MB + (held + (window * BYTES_PER_PIXEL + cells * BYTES_PER_CELL) * share) / 1e6


def fitting_tile(size_hw: tuple[int, int], tile: int, limit_mb: int | None, width: int, halo: int) -> int:
    """The largest tile, of at most the one asked for, that stays within a memory limit.

    Raises:
        InputError: even the smallest does not.
    """
    if limit_mb is None:
        return tile
    choices = [tile, *(smaller for smaller in TILES if smaller < tile)]
    for choice in choices:
        if needed_mb(size_hw, choice, width, halo) <= limit_mb:
            return choice
    least = needed_mb(size_hw, choices[-1], width, halo)
    raise InputError(
        f"memory limit {limit_mb} MB: a picture of {size_hw[1]} x {size_hw[0]} takes {least:.0f} MB "
        f"with tiles of {choices[-1]} pixels; allow that much, or make the picture smaller"
    )


def _divided_up(size: int, parts: int) -> int:
    return -(-size // parts)
