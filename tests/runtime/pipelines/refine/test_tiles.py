"""How a picture is cut, and the tile that a memory limit leaves."""

import re

import numpy as np
import pytest

from maskrt.runtime.errors import InputError
from maskrt.runtime.pipelines.refine.tiles import TILES, backbone_tile, fitting_tile, needed_mb, spans


@pytest.mark.parametrize("step", [1, 2, 4, 7, 8])
def test_spans_cover_an_axis_once(rng: np.random.Generator, step: int) -> None:
    for _ in range(200):
        size, tile, halo = int(rng.integers(1, 700)), int(rng.integers(16, 300)), int(rng.integers(0, 60))
        found = list(spans(size, tile, halo, step))
        covered = [place for span in found for place in range(span.begin, span.end)]
        assert covered == list(range(size))
        assert all(span.begin % step == 0 for span in found)
        lengths = [span.end - span.begin for span in found]
        assert max(lengths) <= -(-tile // step) * step  # a tile of 33 with a step of 8 is 40 wide
        assert len(found) <= -(-size // tile)
        for span in found:
            assert (span.first, span.last) == (max(0, span.begin - halo), min(size, span.end + halo))


def test_spans_written_out() -> None:
    assert [(s.begin, s.end, s.first, s.last) for s in spans(100, 40, 8)] == [
        (0, 34, 0, 42),
        (34, 68, 26, 76),
        (68, 100, 60, 100),
    ]
    assert [(s.begin, s.end) for s in spans(100, 40, step=8)] == [(0, 40), (40, 80), (80, 100)]
    assert [(s.begin, s.end, s.first, s.last) for s in spans(5, 512, 24, 8)] == [(0, 5, 0, 5)]


def test_windows_of_the_backbone() -> None:
    """A little too large is left whole; else six tiles."""
    assert backbone_tile(1, 32) == 1
    assert backbone_tile(240, 32) == 240
    assert backbone_tile(241, 32) == 192
    for size in range(1, 3000, 37):
        assert max(s.end - s.begin for s in spans(size, backbone_tile(size, 32), 0, 8)) <= 240


def test_a_smaller_tile_needs_less() -> None:
    needs = [needed_mb((6064, 4064), tile, 64, 136) for tile in TILES]
    assert needs == sorted(needs, reverse=True)
    assert len(set(needs)) == len(needs)
    assert needed_mb((600, 400), 512, 8, 24) < needed_mb((600, 400), 512, 64, 24) < needed_mb((900, 400), 512, 64, 24)


def test_the_largest_tile_that_fits() -> None:
    size = (4064, 6064)
    assert fitting_tile(size, 384, None, 64, 136) == 384
    assert fitting_tile(size, 2000, None, 64, 136) == 2000
    for tile in TILES:
        limit = int(np.ceil(needed_mb(size, tile, 64, 136)))
        assert fitting_tile(size, 384, limit, 64, 136) == tile
        assert needed_mb(size, fitting_tile(size, 2000, limit, 64, 136), 64, 136) <= limit
    assert fitting_tile(size, 100, 100_000, 64, 136) == 100
    assert fitting_tile(size, 3000, int(np.ceil(needed_mb(size, 256, 64, 136))), 64, 136) == 256
    assert fitting_tile((8, 8), 16, 330, 64, 136) == 16  # smaller than all of TILES


@pytest.mark.parametrize(("tile", "least"), [(256, 64), (100, 64), (64, 64), (32, 32)])
def test_the_error_names_the_need(tile: int, least: int) -> None:
    with pytest.raises(InputError) as caught:
        fitting_tile((300, 400), tile, 1, 64, 136)
    message = str(caught.value)
    assert message.startswith("memory limit 1 MB: a picture of 400 x 300 takes ")
    assert f"with tiles of {least} pixels; allow that much, or make the picture smaller" in message
    (named,) = re.findall(r"takes (\d+) MB", message)
    allowed = fitting_tile((300, 400), tile, int(named) + 1, 64, 136)
    assert least <= allowed <= tile
    assert needed_mb((300, 400), allowed, 64, 136) <= int(named) + 1
    with pytest.raises(InputError, match=f"takes {named} MB"):
        fitting_tile((300, 400), tile, int(named) - 1, 64, 136)
