"""Removing small regions, and their boxes: against the flood fill, and against upstream over OpenCV."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins
from maskrt.kernels.regions import cpu, reference

with torchvision_or_stand_ins():
    from segment_anything.utils.amg import remove_small_regions as upstream

IMPLEMENTATIONS = [cpu.remove_small_regions, reference.remove_small_regions]


def check(mask, min_area):
    for mode in ("holes", "islands"):
        expected, changed = upstream(mask, min_area, mode)
        for implementation in IMPLEMENTATIONS:
            out = ~mask
            assert implementation(mask, min_area, mode, out) is changed
            np.testing.assert_array_equal(out, expected)


@settings(max_examples=300)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)), st.integers(0, 30))
def test_equal_to_upstream(mask, min_area):
    check(mask, min_area)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 0.5, 0.7, 0.95])
def test_equal_to_upstream_on_noise(rng, density):
    for _ in range(20):
        height, width = rng.integers(1, 70, 2)
        check(rng.random((height, width)) < density, int(rng.integers(1, 40)))


def test_equal_to_upstream_on_large_blobs(rng, blobs):
    for height, width in ((480, 641), (641, 480)):
        mask = blobs(rng, height, width, 20) + rng.standard_normal((height, width)) * 2 > 0
        for mode in ("holes", "islands"):
            out = np.empty_like(mask)
            expected, changed = upstream(mask, 30, mode)
            assert cpu.remove_small_regions(mask, 30, mode, out) is changed
            np.testing.assert_array_equal(out, expected)


def test_tie_goes_by_blocks_not_by_first_pixel():
    mask = np.zeros((6, 8), np.bool_)
    mask[0, 5] = mask[1, 0] = True  # raster order: (0, 5) first; its 2 x 2 block comes after that of (1, 0)
    out = np.empty_like(mask)
    assert cpu.remove_small_regions(mask, 5, "islands", out)
    assert np.argwhere(out).tolist() == [[1, 0]]
    check(mask, 5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 5)])
def test_edge_cases(shape):
    for mask in (np.zeros(shape, np.bool_), np.ones(shape, np.bool_)):
        for min_area in (0, 1, 2, 100):
            check(mask, min_area)
    one = np.zeros(shape, np.bool_)
    one[-1, -1] = True
    check(one, 1)
    check(one, 2)


def test_spiral_and_diagonals():
    spiral = np.zeros((9, 9), np.bool_)
    spiral[0], spiral[:, 8], spiral[8], spiral[2:, 0], spiral[2, :7], spiral[2:7, 6] = (
        True,
        True,
        True,
        True,
        True,
        True,
    )
    for mask in (
        spiral,
        ~spiral,
        np.eye(9, dtype=np.bool_),
        np.eye(9, dtype=np.bool_)[::-1],
        np.indices((9, 9)).sum(0) % 2 == 0,
    ):
        for min_area in (1, 5, 20, 200):
            check(np.ascontiguousarray(mask), min_area)


def test_works_in_place(rng):
    mask = rng.random((40, 50)) < 0.4
    for mode in ("holes", "islands"):
        expected, _ = upstream(mask, 12, mode)
        inplace = mask.copy()
        cpu.remove_small_regions(inplace, 12, mode, inplace)
        np.testing.assert_array_equal(inplace, expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_refuses_wrong_arguments(implementation):
    mask = np.zeros((4, 5), np.bool_)
    with pytest.raises(ValueError, match="mode"):
        implementation(mask, 5, "dots", mask.copy())
    with pytest.raises(ValueError, match="out"):
        implementation(mask, 5, "holes", np.zeros((5, 4), np.bool_))
    with pytest.raises(ValueError, match="mask"):
        implementation(mask.astype(np.uint8), 5, "holes", mask.copy())


BOXES = [cpu.region_boxes, reference.region_boxes]


@pytest.mark.parametrize("region_boxes", BOXES)
def test_boxes_written_out(region_boxes):
    mask = np.zeros((6, 9), np.bool_)
    mask[0, 8] = mask[1, 7] = mask[2, 8] = True  # joined by their corners
    mask[3:5, 1:4] = True
    mask[5, 5] = True
    assert sorted(region_boxes(mask).tolist()) == [[0, 7, 3, 9], [3, 1, 5, 4], [5, 5, 6, 6]]


@pytest.mark.parametrize("region_boxes", BOXES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 5)])
def test_boxes_of_nothing_and_of_everything(region_boxes, shape):
    nothing = region_boxes(np.zeros(shape, np.bool_))
    assert (nothing.shape, nothing.dtype) == ((0, 4), np.int64)
    assert region_boxes(np.ones(shape, np.bool_)).tolist() == [[0, 0, *shape]]


@settings(max_examples=200)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_boxes_equal_to_the_definition(mask):
    assert cpu.region_boxes(mask).tolist() == reference.region_boxes(mask).tolist()


@pytest.mark.parametrize("density", [0.02, 0.2, 0.4, 0.5, 0.9])
def test_boxes_equal_to_opencv(rng, density):
    for _ in range(10):
        height, width = rng.integers(1, 120, 2)
        mask = rng.random((height, width)) < density
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        expected = sorted([y, x, y + h, x + w] for x, y, w, h, _ in stats[1:].tolist())
        assert sorted(cpu.region_boxes(mask).tolist()) == expected
        assert cpu.region_boxes(mask).tolist() == reference.region_boxes(mask).tolist()


@pytest.mark.parametrize("region_boxes", BOXES)
def test_boxes_refuse_what_is_no_mask(region_boxes):
    with pytest.raises(ValueError, match="mask"):
        region_boxes(np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="mask"):
        region_boxes(np.zeros(4, np.bool_))
