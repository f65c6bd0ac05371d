"""Outer contours: against the flood fill and walk in plain Python, and against OpenCV."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrt.kernels.contours import cpu, reference


def turned(contour):
    """A closed walk, begun at the first of its smallest rotations, so that the beginning does not matter."""
    points = [tuple(point) for point in contour.reshape(-1, 2).tolist()]
    return min(points[k:] + points[:k] for k in range(len(points)) if points[k] == min(points))


def check(mask):
    expected = reference.outer_contours(mask)
    found = cpu.outer_contours(mask)
    assert [contour.tolist() for contour in found] == [contour.tolist() for contour in expected]
    assert all(contour.dtype == np.int32 and contour.ndim == 2 for contour in found)
    upstream, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    assert sorted(map(turned, found)) == sorted(map(turned, upstream))


@settings(max_examples=300)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans()))
def test_equal_to_reference_and_opencv(mask):
    check(mask)


@pytest.mark.parametrize("density", [0.02, 0.2, 0.4, 0.6, 0.8, 0.98])
def test_noise(rng, density):
    for _ in range(15):
        check(rng.random(rng.integers(1, 60, 2)) < density)


def test_large_blobs(rng, blobs):
    for height, width in ((240, 321), (321, 240)):
        check(blobs(rng, height, width, 20) + rng.standard_normal((height, width)) > 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 5)])
def test_empty_full_and_single_pixels(shape):
    assert cpu.outer_contours(np.zeros(shape, np.bool_)) == []
    check(np.ones(shape, np.bool_))
    one = np.zeros(shape, np.bool_)
    one[-1, -1] = True
    check(one)
    assert cpu.outer_contours(one)[0].tolist() == [[shape[1] - 1, shape[0] - 1]]


def test_an_island_in_a_hole_is_no_outer_contour():
    rings = np.zeros((11, 11), np.bool_)
    rings[1:10, 1:10] = True
    rings[3:8, 3:8] = False
    rings[5, 5] = True
    check(rings)
    assert len(cpu.outer_contours(rings)) == 1
    rings[1, 5] = rings[2, 5] = False  # a gap: the island is outside now
    check(rings)
    assert len(cpu.outer_contours(rings)) == 2


def test_walk_of_a_square_keeps_the_region_on_its_left():
    square = np.zeros((5, 6), np.bool_)
    square[1:3, 2:4] = True
    assert cpu.outer_contours(square)[0].tolist() == [[2, 1], [2, 2], [3, 2], [3, 1]]


def test_many_regions_and_long_outlines():
    dots = np.zeros((60, 60), np.bool_)
    dots[::2, ::2] = True
    check(dots)
    comb = np.zeros((60, 121), np.bool_)
    comb[:, ::2] = comb[0] = True
    check(comb)
    assert len(cpu.outer_contours(comb)[0]) > 2048


@pytest.mark.parametrize("mask", [np.zeros((3, 3)), np.zeros(3, np.bool_), np.zeros((4, 6), np.bool_)[:, ::2]])
@pytest.mark.parametrize("implementation", [cpu.outer_contours, reference.outer_contours])
def test_other_arrays_are_refused(implementation, mask):
    with pytest.raises(ValueError, match="mask: expected C-contiguous bool"):
        implementation(mask)
