"""Cuts a picture into tiles for refinement, and estimates the memory that this takes."""

from collections.abc import Iterator
from dataclasses import dataclass

from maskrt.runtime.errors import InputError

TILES = (384, 256, 192, 128, 96, 64)  # pixels of a side
BACKBONE_TILES = 6  # a backbone window is 6 tiles wide; it may be a quarter wider, which saves a second window
# At ResNet-50's width, from measured peaks over several pictures in one process.
BYTES_PER_CELL = 7000  # taken by the fusion, whose graphs keep their memory between tiles
BYTES_PER_PIXEL = 400  # taken by the backbone in its window
BASE_MB = 320  # the process with its models


@dataclass(frozen=True)
class Span:
    """The places begin to end - 1 of an axis, and the places first to last - 1 that must be read for them."""

    begin: int
    end: int
    first: int
    last: int


def spans(size: int, tile: int, halo: int = 0, step: int = 1) -> Iterator[Span]:
    """Cut an axis into spans of nearly equal length, which begin at multiples of `step`.

    Args:
        tile: the longest span, rounded up to a multiple of `step`.
        halo: places around a span that are read as well, where they exist.
    """
    length = _divided_up(_divided_up(size, _divided_up(size, tile)), step) * step
    for begin in range(0, size, length):
        end = min(begin + length, size)
        yield Span(begin, end, max(0, begin - halo), min(size, end + halo))


def backbone_tile(size: int, tile: int) -> int:
    """Return the side of the backbone's windows: one window that is a little too large beats two with halos."""
    window = BACKBONE_TILES * tile
    return size if size <= window * 5 // 4 else window


def needed_mb(size_hw: tuple[int, int], tile: int, width: int, halo: int) -> float:
    """Return the process's peak memory in MB (10^6 bytes), by the counts above; `width` scales the network's share."""
    height, across = size_hw
    share = width / 64
    pixels = height * across
    # Picture, two masks, and the two coarser scales; the last tile's memory is still held beside the backbone's window.
    held = pixels * (3 + 2 * 4 + 24 * share)
    window = 1.0
    for size in size_hw:
        side = backbone_tile(size, tile)
        window *= min(size, _divided_up(size, _divided_up(size, side)) + 2 * halo)
    cells = (tile // 2 + 4) ** 2
    return BASE_MB + (held + (window * BYTES_PER_PIXEL + cells * BYTES_PER_CELL) * share) / 1e6


def fitting_tile(size_hw: tuple[int, int], tile: int, limit_mb: int | None, width: int, halo: int) -> int:
    """Return the largest tile, up to the given one, that stays within a memory limit.

    Raises:
        InputError: even the smallest tile needs more.
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
