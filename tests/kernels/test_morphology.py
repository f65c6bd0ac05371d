"""Dilation, its shapes, erosion, and contours: against the definitions, against OpenCV, and by brute force."""

from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrt.kernels.morphology import cpu, reference
from maskrt.kernels.morphology.reference import contour, disk, ellipse

IMPLEMENTATIONS = [cpu, reference]


def dilated(module: ModuleType, points: np.ndarray, reach: np.ndarray) -> np.ndarray:
    out = ~points
    module.dilate(points, reach, out)
    return out


def eroded(module: ModuleType, mask: np.ndarray, times: int) -> np.ndarray:
    out = ~mask
    module.erode_cross(mask, times, out)
    return out


def filled(reach: np.ndarray) -> np.ndarray:
    """The shape as an image, uint8 [2 * r + 1, 2 * r + 1]."""
    radius = reach.size // 2
    return (np.abs(np.arange(-radius, radius + 1)) <= reach[:, None]).astype(np.uint8)


@given(
    arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=14)),
    st.integers(0, 6).flatmap(lambda r: arrays(np.int64, 2 * r + 1, elements=st.integers(0, 9))),
)
def test_equal_to_the_definition(points: np.ndarray, reach: np.ndarray) -> None:
    """Shapes of any outline."""
    np.testing.assert_array_equal(dilated(cpu, points, reach), dilated(reference, points, reach))


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 16, 40])
def test_equal_to_opencv(rng: np.random.Generator, radius: int) -> None:
    for height, width in ((1, 1), (1, 60), (60, 1), (47, 90)):
        for density in (0, 0.003, 0.1, 1):
            points = rng.random((height, width)) < density
            for shape in (disk, ellipse):
                reach = shape(radius)
                expected = cv2.dilate(points.astype(np.uint8), filled(reach)) > 0
                np.testing.assert_array_equal(dilated(cpu, points, reach), expected)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_an_answer_written_out(module: ModuleType) -> None:
    points = np.zeros((4, 6), np.bool_)
    points[0, 1] = True
    found = dilated(module, points, np.array([0, 1, 2]))
    assert found.astype(int).tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [0] * 6, [0] * 6]


@pytest.mark.parametrize("radius", range(41))
def test_ellipse_is_opencvs(radius: int) -> None:
    side = 2 * radius + 1
    expected = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    np.testing.assert_array_equal(filled(ellipse(radius)), expected)


@pytest.mark.parametrize("radius", [*range(12), 25, 65, 200])
def test_disk_is_what_lies_within_the_distance(radius: int) -> None:
    away = np.arange(-radius, radius + 1)
    np.testing.assert_array_equal(filled(disk(radius)) > 0, away[:, None] ** 2 + away**2 <= radius**2)


def test_a_band_is_what_lies_within_the_distance(rng: np.random.Generator) -> None:
    points = rng.random((50, 70)) < 0.004
    assert points.any()
    away = cv2.distanceTransform((~points).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    for radius in (1, 3, 10):
        np.testing.assert_array_equal(dilated(cpu, points, disk(radius)), away <= radius + 1e-3)


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_contour_by_brute_force(mask: np.ndarray) -> None:
    height, width = mask.shape
    expected = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            expected[y, x] = any(mask[p] != mask[y, x] for p in near if 0 <= p[0] < height and 0 <= p[1] < width)
    np.testing.assert_array_equal(contour(mask), expected)


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=14)), st.integers(0, 30))
def test_erosion_is_equal_to_the_definition(mask: np.ndarray, times: int) -> None:
    np.testing.assert_array_equal(eroded(cpu, mask, times), eroded(reference, mask, times))


@pytest.mark.parametrize("times", [1, 2, 5, 40, 2**40])
def test_erosion_is_equal_to_opencvs(rng: np.random.Generator, times: int) -> None:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for height, width in ((1, 1), (1, 60), (60, 1), (47, 90)):
        for density in (0, 0.003, 0.02, 0.5, 1):
            mask = rng.random((height, width)) >= density
            expected = cv2.erode(mask.astype(np.uint8), cross, iterations=min(times, height + width)) > 0
            np.testing.assert_array_equal(eroded(cpu, mask, times), expected)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_an_erosion_written_out(module: ModuleType) -> None:
    """Diagonal steps count double, and neither the border nor the mask passed in changes."""
    mask = np.ones((4, 6), np.bool_)
    mask[0, 1] = False
    found = eroded(module, mask, 2)
    assert found.astype(int).tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1], [1, 0, 1, 1, 1, 1], [1] * 6]
    assert mask.sum() == 23
    np.testing.assert_array_equal(eroded(module, mask, 0), mask)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_erosion_refuses_wrong_arguments(module: ModuleType) -> None:
    mask = np.ones((4, 5), np.bool_)
    with pytest.raises(ValueError, match="mask"):
        module.erode_cross(mask.astype(np.uint8), 1, mask.copy())
    with pytest.raises(ValueError, match="out"):
        module.erode_cross(mask, 1, mask[:3].copy())
    with pytest.raises(ValueError, match="times is -1: expected 0 or more erosions"):
        module.erode_cross(mask, -1, mask.copy())


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_refuses_wrong_arguments(module: ModuleType) -> None:
    points, reach = np.zeros((4, 5), np.bool_), disk(1)
    with pytest.raises(ValueError, match="points"):
        module.dilate(points.astype(np.uint8), reach, points.copy())
    with pytest.raises(ValueError, match="out"):
        module.dilate(points, reach, points[:3].copy())
    with pytest.raises(ValueError, match="reach"):
        module.dilate(points, reach.astype(np.int32), points.copy())
    with pytest.raises(ValueError, match="reach has 2 rows: expected an odd number"):
        module.dilate(points, reach[:2].copy(), points.copy())
    with pytest.raises(ValueError, match="none negative"):
        module.dilate(points, np.array([0, -1, 0]), points.copy())
    with pytest.raises(ValueError, match="reach has 0 rows"):
        module.dilate(points, np.zeros(0, np.int64), points.copy())
