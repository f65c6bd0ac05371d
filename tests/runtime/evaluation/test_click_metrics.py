"""Numbers of clicks, failure rates and limits."""

import math

import numpy as np
import pytest

from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.click_metrics import ClickFigures, Limit, click_figures, mask_iou


def test_the_last_click_may_be_too_late() -> None:
    """The later public code counts an object that takes all clicks as failed, whatever its mask."""
    clicks, ious = [20, 19, 20], [0.9, 0.9, 0.8]
    assert click_figures(clicks, ious, Limit(20, 85)) == ClickFigures(3, 1, 59 / 3, 100 / 3)
    assert click_figures(clicks, ious, Limit(20, 85), last_click_fails=True) == ClickFigures(3, 2, 59 / 3, 200 / 3)


def test_figures_written_out() -> None:
    """Reached at the last click; short of it; too late; at once."""
    clicks, ious = [20, 20, 21, 1], [0.85, 0.8499, 0.99, 0.9]
    assert click_figures(clicks, ious, Limit(20, 85)) == ClickFigures(4, 2, (20 + 20 + 20 + 1) / 4, 50.0)
    assert click_figures(clicks, ious, Limit(30, 90)) == ClickFigures(4, 2, (30 + 30 + 21 + 1) / 4, 50.0)


def test_figures_of_random_objects(rng: np.random.Generator) -> None:
    for _ in range(50):
        limit = Limit(int(rng.integers(1, 30)), int(rng.integers(1, 101)))
        clicks, ious = rng.integers(1, 35, 40), rng.random(40)
        failed = (clicks > limit.clicks) | (ious < limit.iou_percent / 100)
        found = click_figures(clicks.tolist(), ious.tolist(), limit)
        assert found.failures == failed.sum()
        assert found.fr_percent == pytest.approx(100 * failed.mean())
        assert found.noc == pytest.approx(np.where(failed, limit.clicks, clicks).mean())


def test_figures_of_nothing() -> None:
    found = click_figures([], [], Limit(20, 85))
    assert found.objects == 0
    assert math.isnan(found.noc)
    assert math.isnan(found.fr_percent)
    with pytest.raises(InputError, match="2 numbers of clicks and 1 IoUs"):
        click_figures([1, 2], [0.5], Limit(20, 85))


def test_an_iou_of_just_the_limit_suffices() -> None:
    """Whatever the areas are: both sides are the nearest double to the same fraction."""
    for percent in range(1, 101):
        for times in (1, 3, 7, 1001):
            assert Limit(1, percent).reached(percent * times / (100 * times))
            assert not Limit(1, percent).reached((percent * times - 1) / (100 * times))


def test_names_and_what_is_no_limit() -> None:
    assert Limit(20, 85).name == "20@85"
    assert Limit(5, 87.5).name == "5@87.5"
    for clicks, percent in ((0, 85), (20, 0), (20, 100.5), (20, math.nan)):
        with pytest.raises(InputError, match="expected 1 or more clicks, and an IoU over 0"):
            Limit(clicks, percent)


def test_iou(rng: np.random.Generator) -> None:
    mask, truth = rng.random((2, 30, 40)) < 0.5
    assert mask_iou(mask, truth) == (mask & truth).sum() / (mask | truth).sum()
    empty = np.zeros((3, 3), np.bool_)
    assert mask_iou(empty, empty) == 1
    assert mask_iou(empty, ~empty) == 0
