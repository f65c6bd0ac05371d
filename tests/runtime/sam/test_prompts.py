"""Where SAM is asked."""

import numpy as np
import pytest

from maskrt.kernels.low_res import Placement, Window
from maskrt.runtime.sam.candidates import Candidate
from maskrt.runtime.sam.prompts import coarse_points, guided_points, inside_any, point_grid


def test_guided_skips_sure_background():
    foreground = np.zeros((100, 200), np.float32)
    foreground[42:58, 90:110] = 0.3  # around the middle, not predicted: below one half
    foreground[0, 0] = 0.1
    found = guided_points(10, foreground)
    # The patch touches cells 4 and 5 of both axes, the pixel the first cell.
    np.testing.assert_allclose(found, [[10, 5], [90, 45], [110, 45], [90, 55], [110, 55]])


def test_guided_adds_points_along_a_cable():
    foreground = np.zeros((400, 400), np.float32)
    foreground[203:206, :] = 0.9  # 3 pixels wide, between the rows of points at 180 and 220
    found = guided_points(10, foreground)
    on_cable = found[(found[:, 1] > 203) & (found[:, 1] < 206)]
    assert len(on_cable) == 10  # one in every cell it crosses
    assert np.unique(on_cable[:, 0] // 40).size == 10
    through_points = np.zeros((400, 400), np.float32)
    through_points[219:222, :] = 0.9
    assert set(map(tuple, guided_points(10, through_points))) <= set(map(tuple, point_grid(10) * 400))
    beside_a_blanket = foreground.copy()
    beside_a_blanket[100:202, :] = 0.9  # the grid's points in the cable's cells are on the blanket
    beside_a_blanket[202, :] = 0
    found = guided_points(10, beside_a_blanket)
    assert ((found[:, 1] > 203) & (found[:, 1] < 206)).sum() == 10
    wide = np.zeros((400, 400), np.float32)
    wide[100:300, 100:300] = 0.9  # the grid has points inside
    assert set(map(tuple, guided_points(10, wide))) <= set(map(tuple, point_grid(10) * 400))


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (7, 1023), (37, 41)])
@pytest.mark.parametrize("value", [0.0, 0.9])
def test_guided_on_tiny_frames(size_hw, value):
    found = guided_points(40, np.full(size_hw, value, np.float32))
    assert (found >= 0).all()
    assert (found < np.array(size_hw[::-1])).all()
    assert len(found) == 0 if value == 0 else len(found) >= 1600


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (37, 41), (48, 48), (81, 80), (120, 97)])
def test_guided_asks_wherever_the_grid_hits_foreground(size_hw):
    rng = np.random.default_rng(1)
    for _ in range(10):
        foreground = np.where(rng.random(size_hw) < 0.1, rng.random(size_hw), 0).astype(np.float32)
        found = set(map(tuple, guided_points(40, foreground)))
        assert all(0 <= x < size_hw[1] and 0 <= y < size_hw[0] for x, y in found)
        grid = point_grid(40) * np.array(size_hw[::-1])
        assert {tuple(p) for p in grid if foreground[int(p[1]), int(p[0])] >= 0.05} <= found


def test_opening_against_the_definition():
    """Thin is what no square of the spacing that fits into the prediction covers."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        height, width = rng.integers(8, 30, 2)
        predicted = rng.random((height, width)) < 0.8
        predicted[:: height // 8, :: width // 8] = True  # something in every cell
        covered = np.zeros_like(predicted)
        spacing = max(1, min(height, width) // 4)
        for y in range(height - spacing + 1):
            for x in range(width - spacing + 1):
                if predicted[y : y + spacing, x : x + spacing].all():
                    covered[y : y + spacing, x : x + spacing] = True
        thin = predicted & ~covered
        found = guided_points(4, predicted.astype(np.float32))
        grid = point_grid(4) * [width, height]
        assert np.array_equal(found[:16], grid)
        extra = found[16:].astype(np.int64)
        assert all(thin[y, x] for x, y in extra)
        cells = {(y * 4 // height, x * 4 // width) for y, x in zip(*np.nonzero(thin), strict=True)}
        hit = {(i // 4, i % 4) for i, (x, y) in enumerate(grid.astype(np.int64)) if thin[y, x]}
        assert [(y * 4 // height, x * 4 // width) for x, y in extra] == sorted(cells - hit)  # one in each


def test_coarse_points_are_every_second():
    coarse = coarse_points(40).reshape(40, 40)
    assert coarse.sum() == 400
    assert coarse[::2, ::2].all()
    assert coarse_points(1).all()
    assert coarse_points(5).sum() == 9


def test_inside_any():
    values = np.full((2, 3), -1, np.float32)
    values[1, 2] = 1  # low-res row 5, column 8 of 32: at 4 pixels a cell
    candidate = Candidate(Window(values, 4, 6), np.zeros(4, np.int32), np.zeros(2), np.float32(1), np.float32(1))
    placement = Placement(128, (64, 128), (128, 256))  # the image is twice as large as what the encoder sees
    points = np.array([[8.5, 5.5], [9.5, 5.5], [8.5, 4.5], [0, 0], [31.99, 15.99]]) * 8
    assert inside_any(points, [candidate], 32, placement, 0.0).tolist() == [True, False, False, False, False]
    assert not inside_any(points, [], 32, placement, 0.0).any()
