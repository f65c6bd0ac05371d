"""Polygons: how far the outline is from them, and which are left out."""

import cv2
import numpy as np
import pytest

from maskrt.kernels.contours import outer_contours
from maskrt.runtime.serve.polygons import polygons, simplified


def apart(contour, polygon):
    """The largest distance of a contour's points from a closed polygon, point by point and side by side."""
    worst = 0.0
    for point in contour.astype(float):
        best = np.inf
        for start, end in zip(polygon.astype(float), np.roll(polygon, -1, axis=0).astype(float), strict=True):
            along = end - start
            length = along @ along
            share = min(1.0, max(0.0, (point - start) @ along / length)) if length else 0.0
            best = min(best, np.hypot(*(point - start - share * along)))
        worst = max(worst, best)
    return worst


@pytest.mark.parametrize("tolerance", [0.0, 0.4, 1.0, 3.0])
def test_no_point_is_farther_than_the_tolerance(rng, blobs, tolerance):
    for _ in range(3):
        for contour in outer_contours(blobs(rng, 50, 64) > 0):
            polygon = simplified(contour, tolerance)
            assert apart(contour, polygon) <= tolerance + 1e-9
            assert polygon[0].tolist() == contour[0].tolist()


def test_corners_are_kept_and_straight_lines_are_not():
    mask = np.zeros((20, 30), np.bool_)
    mask[3:10, 5:25] = True
    mask[3:6, 5:10] = False
    assert polygons(mask, 0.001)[0].tolist() == [[10, 3], [10, 5], [9, 6], [5, 6], [5, 9], [24, 9], [24, 3]]


def test_far_fewer_corners_than_outline_and_nearly_the_same_area():
    mask = cv2.circle(np.zeros((200, 200), np.uint8), (100, 100), 80, 1, -1)
    (polygon,) = polygons(mask > 0, 0.01)
    assert len(polygon) < 60 < len(outer_contours(mask > 0)[0])
    drawn = cv2.fillPoly(np.zeros_like(mask), [polygon], 1)
    assert (drawn != mask).mean() < 0.01


def test_at_most_one_pixel_whatever_is_asked(rng, blobs):
    mask = blobs(rng, 120, 160) > 0
    contours = {tuple(contour[0]): contour for contour in outer_contours(mask)}
    found = polygons(mask, 1.0)
    assert found
    assert all(apart(contours[tuple(polygon[0])], polygon) <= 1 + 1e-9 for polygon in found)


def test_drawn_again_without_tolerance_a_mask_comes_back(rng, blobs):
    mask = blobs(rng, 90, 70) > 1
    drawn = np.zeros(mask.shape, np.uint8)
    for contour in outer_contours(mask):
        cv2.fillPoly(drawn, [simplified(contour, 0.0)], 1)
    filled = drawn > 0
    assert (filled >= mask).all()  # the same but for holes
    assert cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)[0] >= 2
    for y, x in np.argwhere(filled & ~mask):
        assert not reaches_border(~mask, y, x)


def reaches_border(background, y, x):
    labels = cv2.connectedComponents(background.astype(np.uint8), connectivity=4)[1]
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return labels[y, x] in border


def test_small_parts_are_left_out():
    mask = np.zeros((60, 60), np.bool_)
    mask[5:30, 5:30] = True
    mask[40:55, 40:55] = True
    mask[2:5, 50:53] = True  # area 4 of a mean of 259
    assert [polygon[0].tolist() for polygon in polygons(mask, 0.001)] == [[5, 5], [40, 40]]


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 7), (7, 1), (2, 2)])
def test_masks_without_area(shape):
    mask = np.zeros((9, 9), np.bool_)
    assert polygons(mask, 0.001) == []
    mask[1 : 1 + shape[0], 1 : 1 + shape[1]] = True
    assert len(polygons(mask, 0.001)) == (shape == (2, 2))


def test_the_whole_picture():
    assert polygons(np.ones((4, 5), np.bool_), 0.001)[0].tolist() == [[0, 0], [0, 3], [4, 3], [4, 0]]
