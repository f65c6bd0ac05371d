"""Scores of several classes, against values worked out by hand."""

import math

import numpy as np
import pytest

from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.class_scores import ClassScores, check_numbers
from maskrt.runtime.evaluation.compare import Comparison
from maskrt.runtime.evaluation.metrics import Confusion

CLASSES = ("background", "cable", "tube")


def compared(truth: list[int], found: list[int]) -> Comparison:
    numbers, answer = np.array([truth], np.uint8), np.array([found], np.uint8)
    rgb = np.zeros((1, len(truth), 3), np.uint8)
    return Comparison(rgb, numbers == 1, {"m": answer == 1}, labels={"m": answer}, truth_labels=numbers)


@pytest.fixture
def scores() -> ClassScores:
    """Cable: 1 of 2 found in the first image, 2 of 2 in the second. Tube: absent from the second."""
    found = ClassScores(("m",), CLASSES)
    found.add(compared([0, 0, 1, 1, 2, 2], [0, 0, 1, 0, 2, 2]))
    found.add(compared([0, 1, 1, 0], [0, 1, 1, 1]))
    return found


def test_pooled(scores: ClassScores) -> None:
    figures = scores.figures()["pooled"]["m"]
    background, cable, tube = (figures.classes[name] for name in CLASSES)
    assert (background.iou, background.precision, background.recall) == (3 / 5, 3 / 4, 3 / 4)
    assert (cable.iou, cable.dice, cable.precision, cable.recall) == (3 / 5, 6 / 8, 3 / 4, 3 / 4)
    assert (tube.iou, tube.dice) == (1, 1)
    assert figures.mean.iou == pytest.approx((3 / 5 + 3 / 5 + 1) / 3)
    assert figures.mean.dice == pytest.approx((3 / 4 + 3 / 4 + 1) / 3)


def test_per_image(scores: ClassScores) -> None:
    figures = scores.figures()["per_image"]["m"]
    background, cable, tube = (figures.classes[name] for name in CLASSES)
    assert background.iou == (2 / 3 + 1 / 2) / 2
    assert cable.iou == (1 / 2 + 2 / 3) / 2
    assert cable.dice == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert (cable.precision, cable.recall) == ((1 + 2 / 3) / 2, (1 / 2 + 1) / 2)
    assert (tube.iou, tube.dice, tube.recall) == (1, 1, 1)
    assert figures.mean.iou == pytest.approx((background.iou + cable.iou + 1) / 3)


def test_a_class_that_is_nowhere_is_undefined_and_not_in_the_mean() -> None:
    found = ClassScores(("m",), CLASSES)
    found.add(compared([0, 1], [0, 1]))
    figures = found.figures()
    for way in figures.values():
        assert math.isnan(way["m"].classes["tube"].iou)
        assert way["m"].mean.iou == 1
    assert math.isnan(figures["pooled"]["m"].classes["tube"].dice)
    assert figures["per_image"]["m"].classes["tube"].dice == 1


def test_each_class_is_a_mask_against_all_others(rng: np.random.Generator) -> None:
    found, alone = ClassScores(("m",), CLASSES), Confusion()
    for _ in range(3):
        truth, answer = rng.integers(0, 3, (2, 40)).tolist()
        found.add(compared(truth, answer))
        alone.add(np.array([truth]) == 2, np.array([answer]) == 2)
    ways = found.figures()
    pooled, per_image = (ways[way]["m"].classes["tube"] for way in ("pooled", "per_image"))
    assert (pooled.iou, pooled.dice) == (alone.metrics().iou, alone.metrics().f1)
    assert (per_image.iou, per_image.dice) == (alone.per_image().iou, alone.per_image().dice)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unknown_numbers_are_named(dtype: type) -> None:
    check_numbers(np.array([[0, 1, 2]], dtype), CLASSES, "a.png")
    with pytest.raises(InputError, match=r"a\.png has the class numbers 3, 255, .* 0 background, 1 cable, 2 tube: "):
        check_numbers(np.array([[0, 3, 255, 3]], dtype), CLASSES, "a.png")
    with pytest.raises(InputError, match=r"numbers 3, 4, 5, 6, 7, 8, 9, 10, \.\.\., and"):
        check_numbers(np.arange(20, dtype=dtype)[None], CLASSES, "a.png")


def test_a_kind_without_labels_is_refused() -> None:
    masks = Comparison(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1), bool), {"m": np.ones((1, 1), bool)})
    with pytest.raises(InputError, match="leave --labels out"):
        ClassScores(("m",), CLASSES).add(masks)
