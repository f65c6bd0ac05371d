"""Clicks as prompts and targets, and masks as matrix products, against plain computations."""

import numpy as np
import pytest

from maskrt.kernels.resample.reference import resize_bilinear
from maskrt.runtime.errors import InputError
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.interactive.prompts import checked_box, checked_click, click_target, clicked_pixels, prompt_feeds
from maskrt.runtime.sam.interpolation import grid_weights, image_weights, interpolate


def resized(plane: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    out = np.empty((1, *size_hw), np.float32)
    resize_bilinear(np.ascontiguousarray(plane[None]), out)
    return out[0]


@pytest.mark.parametrize(
    ("input_hw", "size_hw"), [((64, 41), (70, 45)), ((64, 64), (200, 200)), ((1, 64), (1, 300)), ((64, 30), (9, 4))]
)
def test_matrices_resize_as_two_resizes_do(input_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    low_res = np.random.default_rng().normal(size=(16, 16)).astype(np.float32)
    seen = resized(low_res, (64, 64))[: input_hw[0], : input_hw[1]]
    rows, columns = (image_weights(16, 64, length, size) for length, size in zip(input_hw, size_hw, strict=True))
    np.testing.assert_allclose(interpolate(rows, low_res, columns), resized(seen, size_hw), atol=1e-5)
    grid_rows, grid_columns = (grid_weights(16, 64, length) for length in input_hw)
    np.testing.assert_allclose(interpolate(grid_rows, low_res, grid_columns), seen, atol=1e-5)


def test_clicks_lie_on_the_pixel_under_their_centre() -> None:
    random = np.random.default_rng()
    for _ in range(200):
        size_hw = int(random.integers(1, 300)), int(random.integers(1, 300))
        grid_hw = int(random.integers(1, 100)), int(random.integers(1, 100))
        clicks = [
            Click(int(random.integers(size_hw[1])), int(random.integers(size_hw[0])), bool(random.integers(2)))
            for _ in range(int(random.integers(1, 8)))
        ]
        expected = np.full(grid_hw, -1, np.float32)
        for click in clicks:  # in order: the last one on a pixel counts
            row = ((2 * click.y + 1) * grid_hw[0]) // (2 * size_hw[0])
            column = ((2 * click.x + 1) * grid_hw[1]) // (2 * size_hw[1])
            expected[row, column] = click.positive
        rows, columns, target = click_target(clicks, size_hw, grid_hw)
        found = np.full(grid_hw, -1, np.float32)
        found[np.ix_(rows, columns)] = target
        np.testing.assert_array_equal(found, expected)
        at_rows, at_columns, values = clicked_pixels(clicks, size_hw, grid_hw)
        np.testing.assert_array_equal(values, expected[at_rows, at_columns])
        assert len(values) == (expected >= 0).sum()


def test_a_box_comes_behind_the_clicks_in_place_of_the_padding() -> None:
    clicks = [Click(10, 20), Click(0, 0, False)]
    alone = prompt_feeds(clicks, None, (50, 100), (25, 200))
    np.testing.assert_array_equal(alone["point_coords"], [[[20, 10], [0, 0], [0, 0]]])
    np.testing.assert_array_equal(alone["point_labels"], [[1, 0, -1]])
    boxed = prompt_feeds(clicks, (1, 2, 3, 4), (50, 100), (25, 200))
    np.testing.assert_array_equal(boxed["point_coords"], [[[20, 10], [0, 0], [2, 1], [6, 2]]])
    np.testing.assert_array_equal(boxed["point_labels"], [[1, 0, 2, 3]])
    assert prompt_feeds([], (1, 2, 3, 4), (50, 100), (25, 200))["point_coords"].shape == (1, 2, 2)


@pytest.mark.parametrize("box", [(5, 5, 4, 9), (0, 0, 10, 3), (-1, 0, 3, 3), (0, 0, 3), (0, 0, 1.5, 3)])
def test_boxes_that_are_none_are_refused(box: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        checked_box(box, (8, 10))


def test_one_pixel_is_a_box_and_numpy_integers_are_pixels() -> None:
    assert checked_box((9, 7, 9, 7), (8, 10)) == (9, 7, 9, 7)
    assert checked_click(Click(np.int64(9), np.uint8(7)), (8, 10)) == Click(9, 7)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="whole number"):
        checked_click(Click(1.5, 2), (8, 10))  # type: ignore[arg-type]
