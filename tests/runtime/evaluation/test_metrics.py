"""Scores against plain formulas and hand-made cases."""

import math

import msgspec
import numpy as np
import pytest

from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.metrics import Confusion, binary_metrics, image_dice


def roc_area(truth: np.ndarray, score: np.ndarray) -> float:
    """The area under the ROC by its meaning: the chance that a positive scores higher, ties counting half."""
    positive, negative = score[truth], score[~truth]
    wins = (positive[:, None] > negative).sum() + 0.5 * (positive[:, None] == negative).sum()
    return float(wins) / (positive.size * negative.size)


def test_random_masks_against_plain_formulas(rng: np.random.Generator) -> None:
    for share in (0.1, 0.5, 0.9):
        truth, predicted = rng.random((13, 17)) < 0.4, rng.random((13, 17)) < share
        hits = sum(bool(t and p) for t, p in zip(truth.flat, predicted.flat, strict=True))
        precision, recall = hits / predicted.sum(), hits / truth.sum()
        metrics = binary_metrics(truth, predicted)
        assert metrics.accuracy == pytest.approx((truth == predicted).mean())
        assert metrics.precision == pytest.approx(precision)
        assert metrics.recall == pytest.approx(recall)
        assert metrics.f1 == pytest.approx(2 * precision * recall / (precision + recall))
        assert metrics.iou == pytest.approx(hits / (truth | predicted).sum())
        assert metrics.auc == pytest.approx(roc_area(truth, predicted.astype(float)))


def test_pooled_counts_equal_one_large_image(rng: np.random.Generator) -> None:
    truth, predicted = rng.random((4, 9, 5)) < 0.3, rng.random((4, 9, 5)) < 0.3
    pooled = Confusion()
    for one_truth, one_predicted in zip(truth, predicted, strict=True):
        pooled.add(one_truth, one_predicted)
    whole = binary_metrics(truth.reshape(-1, 5), predicted.reshape(-1, 5))
    singly = [binary_metrics(*pair).dice for pair in zip(truth, predicted, strict=True)]
    assert pooled.metrics() == msgspec.structs.replace(whole, dice=np.mean(singly))
    assert whole.dice != pooled.metrics().dice


def test_perfect_and_inverted() -> None:
    truth = np.array([[True, False]])
    assert set(msgspec.structs.asdict(binary_metrics(truth, truth)).values()) == {1.0}
    assert set(msgspec.structs.asdict(binary_metrics(truth, ~truth)).values()) == {0.0}


def test_dice_is_a_mean_over_images() -> None:
    """One image of four true pixels, of which two are found and one more; and one with nothing to find."""
    truth, predicted = np.zeros((2, 2, 4), bool), np.zeros((2, 2, 4), bool)
    truth[0, 0], predicted[0, 0, :2], predicted[0, 1, 0] = True, True, True
    confusion = Confusion()
    for pair in zip(truth, predicted, strict=True):
        confusion.add(*pair)
    assert confusion.metrics().dice == (2 * 2 / (4 + 3) + 1) / 2
    assert confusion.metrics().f1 == 4 / 7


def test_per_image_is_a_mean_of_images_in_which_a_score_is_defined() -> None:
    """IoU 1 of 1 pixel, 1/3 of 3, and an image with nothing: pooled 2 of 4, per image 2/3 over two of the three."""
    confusion = Confusion()
    for truth, predicted in (([1, 0, 0, 0], [1, 0, 0, 0]), ([1, 1, 0, 0], [0, 1, 1, 0]), ([0] * 4, [0] * 4)):
        confusion.add(np.array([truth], bool), np.array([predicted], bool))
    pooled, per_image = confusion.metrics(), confusion.per_image()
    assert pooled.iou == 2 / 4
    assert per_image.iou == (1 + 1 / 3) / 2
    assert (pooled.precision, per_image.precision) == (2 / 3, (1 + 1 / 2) / 2)
    assert per_image.accuracy == (1 + 1 / 2 + 1) / 3
    assert pooled.dice == per_image.dice == (1 + 1 / 2 + 1) / 3  # both empty counts 1


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ([1, 0, 0, 0], [0, 0, 0, 0], 0.0),  # the one pixel is missed
        ([0, 0, 0, 0], [0, 1, 0, 0], 0.0),  # nothing to find, and something found
        ([0, 0, 0, 0], [0, 0, 0, 0], 1.0),  # nothing to find, and nothing found
        ([1, 0, 0, 0], [1, 0, 0, 0], 1.0),
        ([1, 1, 0, 0], [0, 1, 1, 0], 0.5),
        ([1, 1, 1, 0], [1, 0, 0, 0], 0.5),
        ([1, 1, 1, 1], [1, 0, 0, 0], 0.4),
    ],
)
def test_dice_of_a_few_pixels_is_not_smoothed(truth: list[int], predicted: list[int], expected: float) -> None:
    masks = np.array([truth], bool), np.array([predicted], bool)
    assert image_dice(*masks) == expected
    assert binary_metrics(*masks).dice == expected


@pytest.mark.parametrize(
    ("truth", "predicted", "undefined"),
    [
        (False, False, {"f1", "precision", "recall", "iou", "auc"}),
        (True, False, {"precision", "auc"}),
        (False, True, {"recall", "auc"}),
        (True, True, {"auc"}),
    ],
)
def test_undefined_scores_are_nan_and_null_in_json(truth: bool, predicted: bool, undefined: set[str]) -> None:
    metrics = binary_metrics(np.full((2, 2), truth), np.full((2, 2), predicted))
    assert {name for name, value in msgspec.structs.asdict(metrics).items() if math.isnan(value)} == undefined
    written = msgspec.json.decode(msgspec.json.encode(metrics))
    assert {name for name, value in written.items() if value is None} == undefined


def test_no_pixels() -> None:
    assert math.isnan(Confusion().metrics().accuracy)
    assert math.isnan(Confusion().metrics().dice)


@pytest.mark.parametrize("predicted", [np.zeros((2, 3), bool), np.zeros((2, 2), np.uint8)])
def test_unequal_masks_are_refused(predicted: np.ndarray) -> None:
    with pytest.raises(InputError, match="bool and of one size"):
        binary_metrics(np.zeros((2, 2), bool), predicted)
