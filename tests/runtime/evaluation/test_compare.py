"""Evaluation: three methods from one run, inside the region of interest."""

import numpy as np
import pytest

from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.compare import METHODS, Scores, compare_methods
from maskrt.runtime.evaluation.figures import comparison, stack
from maskrt.runtime.evaluation.metrics import binary_metrics
from maskrt.runtime.kinds.open import open_pipeline


@pytest.fixture(scope="module")
def compared(tiny_bundle):
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    truth = np.zeros((90, 120), bool)
    truth[30:60, 40:80] = True
    with open_pipeline(tiny_bundle) as pipeline:
        result = pipeline(rgb, roi=(20, 10, 80, 70))
        return compare_methods(pipeline, rgb, truth, roi=(20, 10, 80, 70)), result, truth


def test_everything_is_cut_to_the_region(compared):
    views, _, truth = compared
    assert views.rgb.shape == (70, 80, 3)
    assert np.array_equal(views.truth, truth[10:80, 20:100])
    assert set(views.masks) == set(METHODS)
    assert all(mask.shape == (70, 80) for mask in views.masks.values())


def test_soss_is_what_the_pipeline_returns(compared):
    views, result, _ = compared
    assert np.array_equal(views.masks["soss"], result.mask[10:80, 20:100])


def test_scores_pool_pixels_over_images(compared):
    views, _, _ = compared
    scores = Scores()
    scores.add(views)
    assert scores.metrics()["soss"] == binary_metrics(views.truth, views.masks["soss"])
    scores.add(views)
    assert scores.images == 2
    assert scores.metrics()["soss"] == binary_metrics(views.truth, views.masks["soss"])
    names = ["accuracy", "f1", "precision", "recall", "iou", "auc"]
    expected = [f"{name}, {way}" for way in ("pooled", "per image") for name in names]
    assert [name for name, _ in scores.rows()] == [*expected, "dice, per image"]


def test_truth_of_another_size_is_refused(tiny_bundle):
    with open_pipeline(tiny_bundle) as pipeline, pytest.raises(InputError, match="same frame"):
        compare_methods(pipeline, np.zeros((20, 30, 3), np.uint8), np.zeros((30, 20), bool))


def test_figure_shows_five_panels_of_the_region(compared):
    views, _, _ = compared
    picture = comparison(views, panel_width=80)
    assert picture.shape == (70 + 26 + 6, 5 * (80 + 6) + 6, 3)
    # The first panel is the image itself at its own size.
    assert np.array_equal(picture[26:96, 6:86], views.rgb)
    assert stack([picture, picture]).shape == (2 * picture.shape[0], picture.shape[1], 3)
