"""The simulated user, against brute force."""

import numpy as np
import pytest

from maskrt.kernels import sets
from maskrt.runtime.evaluation.simulated_user import next_click
from maskrt.runtime.interactive.clicks import Click


def plain_depths(wrong: np.ndarray) -> np.ndarray:
    """The squared distance of every wrong pixel to the nearest other one, the picture being padded with these."""
    padded = np.pad(wrong, 1)
    away = np.argwhere(~padded)
    depths = np.zeros(padded.shape, int)
    for y, x in np.argwhere(padded):
        depths[y, x] = min((y - row) ** 2 + (x - column) ** 2 for row, column in away)
    return depths[1:-1, 1:-1]


def plain_click(mask: np.ndarray, truth: np.ndarray, clicked: list[Click]) -> Click | None:
    lacking, too_much = plain_depths(truth & ~mask), plain_depths(mask & ~truth)
    for click in clicked:
        lacking[click.y, click.x] = too_much[click.y, click.x] = 0
    positive = bool(lacking.max() > too_much.max())
    depths = lacking if positive else too_much
    if depths.max() == 0:
        return None
    y, x = np.argwhere(depths == depths.max())[0]
    return Click(int(x), int(y), positive)


@pytest.mark.parametrize("kernels", [sets.CPU, sets.REFERENCE], ids=["cpu", "reference"])
@pytest.mark.parametrize("density", [0.05, 0.5, 0.9])
def test_equal_to_brute_force(rng: np.random.Generator, density: float, kernels: sets.KernelSet) -> None:
    """Every click until nothing is left to click on, with masks that do not change."""
    for height, width in ((1, 1), (1, 9), (6, 7), (11, 14)):
        mask, truth = rng.random((2, height, width)) < density
        clicked: list[Click] = []
        while (click := next_click(mask, truth, clicked, kernels)) is not None:
            assert click == plain_click(mask, truth, clicked)
            assert truth[click.y, click.x] == click.positive != mask[click.y, click.x]
            clicked.append(click)
        assert plain_click(mask, truth, clicked) is None
        assert len(set(clicked)) == np.count_nonzero(mask ^ truth)


def test_equal_to_brute_force_on_blobs(rng: np.random.Generator, blobs) -> None:
    for _ in range(5):
        mask, truth = (blobs(rng, 24, 30) > 0 for _ in range(2))
        clicked: list[Click] = []
        for _ in range(4):
            click = next_click(mask, truth, clicked)
            assert click is not None
            assert click == plain_click(mask, truth, clicked)
            clicked.append(click)


def test_the_first_click_is_inside_the_object() -> None:
    truth = np.zeros((20, 30), np.bool_)
    truth[5:10, 10:25] = True
    assert next_click(np.zeros_like(truth), truth, []) == Click(12, 7, True)


def test_of_equal_depths_what_is_too_much_is_clicked_on() -> None:
    mask, truth = np.zeros((2, 9, 20), np.bool_)
    truth[2:5, 2:5] = True
    mask[4:7, 12:15] = True
    assert next_click(mask, truth, []) == Click(13, 5, False)
    truth[5, 2:5] = truth[2:6, 5] = truth[2:7, 6] = truth[6, 2:6] = True
    assert next_click(mask, truth, []) == Click(4, 4, True)


def test_the_border_of_the_picture_is_the_edge_of_what_is_wrong() -> None:
    truth = np.ones((7, 9), np.bool_)
    assert next_click(np.zeros_like(truth), truth, []) == Click(3, 3, True)


def test_nothing_wrong_needs_no_click() -> None:
    mask = np.eye(4, dtype=np.bool_)
    assert next_click(mask, mask, []) is None
    other = mask.copy()
    other[0, 3] = True
    assert next_click(mask, other, []) == Click(3, 0, True)
    assert next_click(mask, other, [Click(3, 0, True)]) is None


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one size"):
        next_click(np.zeros((3, 4), np.bool_), np.zeros((4, 3), np.bool_), [])
