"""Scores of refiners: against OpenCV's morphology, as the public code computes them."""

import math

import cv2
import numpy as np
import pytest

from maskrt.kernels import sets
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.refine_metrics import RefineScores, boundary_accuracy, radii


def plain_accuracy(truth: np.ndarray, mask: np.ndarray) -> float:
    """compute_boundary_acc of the public code, over OpenCV."""
    height, width = truth.shape
    largest = (width + height) / 300
    shares = []
    for i in range(5):
        radius = 1 + int((largest - 1) / 5 * i)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (radius * 2 + 1, radius * 2 + 1))
        region = cv2.morphologyEx(truth.astype(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0
        shares.append((truth == mask)[region].sum() / region.sum())
    return float(np.mean(shares))


@pytest.mark.parametrize("shape", [(40, 60), (301, 299), (480, 640), (1100, 900)])
def test_equal_to_opencv(rng: np.random.Generator, blobs, shape: tuple[int, int]) -> None:
    """Exactly, with outlines that touch the picture's edges, and with single pixels."""
    for noise in (0.0, 0.01):
        truth = (blobs(rng, *shape, 6) > 0) ^ (rng.random(shape) < noise)
        for mask in (truth, ~truth, blobs(rng, *shape, 6) > 0, np.roll(truth, 3, axis=1)):
            found = boundary_accuracy(truth, mask)
            assert found == plain_accuracy(truth, mask)
            assert 0 <= found <= 1


def test_the_kernels_definition_scores_the_same(rng: np.random.Generator, blobs) -> None:
    truth, mask = blobs(rng, 90, 120) > 0, blobs(rng, 90, 120) > 0
    assert boundary_accuracy(truth, mask, sets.REFERENCE) == boundary_accuracy(truth, mask)


def test_a_score_written_out() -> None:
    """One width, 1: the eight pixels along an edge down the middle, of which one is wrong."""
    truth = np.zeros((4, 6), np.bool_)
    truth[:, 3:] = True
    mask = truth.copy()
    mask[0, 2] = True
    mask[0, 0] = True  # far from the edge
    assert boundary_accuracy(truth, mask) == 7 / 8
    assert boundary_accuracy(truth, ~truth) == 0


@pytest.mark.parametrize(
    ("shape", "expected"), [((1, 1), [1] * 5), ((300, 299), [1] * 5), ((1500, 1500), [1, 2, 4, 6, 8])]
)
def test_radii(shape: tuple[int, int], expected: list[int]) -> None:
    assert radii(shape) == expected


def test_pooled_scores(rng: np.random.Generator, blobs) -> None:
    scores = RefineScores()
    assert math.isnan(scores.iou)
    assert math.isnan(scores.mba)
    pairs = [(blobs(rng, *shape) > 0, blobs(rng, *shape) > 0) for shape in ((50, 60), (200, 100), (9, 30))]
    for truth, mask in pairs:
        scores.add(truth, mask)
    truths, masks = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    assert scores.iou == (truths & masks).sum() / (truths | masks).sum()
    assert scores.mba == np.mean([plain_accuracy(*pair) for pair in pairs])
    assert scores.without_boundary == 0


@pytest.mark.parametrize("value", [True, False])
def test_a_truth_without_boundary_counts_for_the_iou_only(value: bool) -> None:
    truth = np.full((20, 30), value)
    mask = truth.copy()
    mask[:5] = True
    assert math.isnan(boundary_accuracy(truth, mask))
    scores = RefineScores()
    scores.add(truth, mask)
    assert (scores.without_boundary, scores.accuracies, scores.iou) == (1, [], float(value))
    half = np.zeros((20, 30), np.bool_)
    half[:10] = True
    scores.add(half, half)
    assert (scores.without_boundary, scores.mba) == (1, 1.0)


def test_masks_that_cannot_be_compared() -> None:
    mask = np.zeros((4, 5), np.bool_)
    for other in (mask[:3], mask.astype(np.uint8), mask.astype(np.float32)):
        for pair in ((mask, other), (other, mask)):
            with pytest.raises(InputError, match="masks to compare must be bool and of one size"):
                boundary_accuracy(*pair)
    with pytest.raises(InputError, match="must be bool"):
        RefineScores().add(mask[0], mask[0])
