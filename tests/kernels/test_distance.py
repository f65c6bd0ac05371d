"""Squared distances: against the definition, and against OpenCV."""

from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from maskrt.kernels.distance import cpu, reference

IMPLEMENTATIONS = [cpu, reference]


def squares(module: ModuleType, mask: np.ndarray) -> np.ndarray:
    out = np.full(mask.shape, -7, np.int64)
    module.squared_distance(mask, out)
    return out


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20)))
def test_equal_to_the_definition(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(squares(cpu, mask), squares(reference, mask))


@pytest.mark.parametrize("density", [0, 0.001, 0.01, 0.1, 0.5, 1])
def test_equal_to_the_definition_in_larger_pictures(rng: np.random.Generator, density: float) -> None:
    for height, width in ((1, 90), (90, 1), (2, 61), (47, 83), (80, 40)):
        mask = rng.random((height, width)) >= density
        np.testing.assert_array_equal(squares(cpu, mask), squares(reference, mask))


def test_equal_to_opencv(rng: np.random.Generator) -> None:
    """Its exact distances are float32, whose squares are whole again once rounded."""
    for height, width in ((1, 1), (300, 411), (480, 640)):
        for density in (0, 1e-4, 1e-2):
            mask = rng.random((height, width)) >= density
            away = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            expected = np.rint(away[1:-1, 1:-1].astype(np.float64) ** 2)
            np.testing.assert_array_equal(squares(cpu, mask), expected)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_an_answer_written_out(module: ModuleType) -> None:
    mask = np.ones((5, 6), np.bool_)
    mask[2, 0] = False
    assert squares(module, mask).tolist() == [
        [1, 1, 1, 1, 1, 1],
        [1, 2, 4, 4, 4, 1],
        [0, 1, 4, 9, 4, 1],
        [1, 2, 4, 4, 4, 1],
        [1, 1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_refuses_wrong_arguments(module: ModuleType) -> None:
    mask = np.ones((4, 5), np.bool_)
    with pytest.raises(ValueError, match="mask"):
        module.squared_distance(mask.astype(np.uint8), np.zeros((4, 5), np.int64))
    with pytest.raises(ValueError, match="mask"):
        module.squared_distance(np.ones((5, 4), np.bool_).T, np.zeros((4, 5), np.int64))
    with pytest.raises(ValueError, match="out"):
        module.squared_distance(mask, np.zeros((4, 5), np.int32))
    with pytest.raises(ValueError, match="out"):
        module.squared_distance(mask, np.zeros((5, 4), np.int64))
