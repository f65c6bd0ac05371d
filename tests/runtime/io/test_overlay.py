"""Pictures for people."""

import numpy as np

from maskrt.runtime.io.overlay import MASK_RGB, ROI_RGB, outline, overlay, segments_picture
from maskrt.runtime.rle import encode_rle
from maskrt.runtime.types import Segments


def segments_of(masks: list[np.ndarray], size_hw: tuple[int, int]) -> Segments:
    """Segments with the given masks and made-up scores."""
    count = len(masks)
    return Segments(
        size_hw=size_hw,
        rles=tuple(encode_rle(mask) for mask in masks),
        boxes_xyxy=np.zeros((count, 4), np.int32),
        points_xy=np.zeros((count, 2)),
        pred_iou=np.ones(count, np.float32),
        stability_score=np.ones(count, np.float32),
        area=np.array([mask.sum() for mask in masks], np.int64),
    )


def test_outline() -> None:
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    inside = np.zeros((7, 7), bool)
    inside[2:5, 2:5] = True
    assert np.array_equal(outline(mask), mask & ~inside)
    inside[:] = False
    inside[3, 3] = True
    assert np.array_equal(outline(mask, 2), mask & ~inside)
    assert not outline(np.ones((3, 4), bool)).any()
    assert not outline(np.zeros((1, 1), bool)).any()


def test_overlay_tints_outlines_and_frames() -> None:
    rgb = np.full((20, 30, 3), 100, np.uint8)
    mask = np.zeros((20, 30), bool)
    mask[5:12, 5:12] = True
    picture = overlay(rgb, mask, (2, 3, 20, 15))
    assert (rgb == 100).all()
    assert picture[5, 5].tolist() == list(MASK_RGB)
    assert picture[8, 8].tolist() == [round(0.6 * 100 + 0.4 * value) for value in MASK_RGB]
    assert picture[10, 16].tolist() == [100, 100, 100]
    assert picture[3, 2].tolist() == picture[17, 21].tolist() == list(ROI_RGB)
    assert picture[2, 2].tolist() == picture[18, 21].tolist() == [100, 100, 100]


def test_overlay_of_one_pixel() -> None:
    assert overlay(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1), bool), (0, 0, 1, 1)).shape == (1, 1, 3)


def test_segments_picture_paints_small_over_large() -> None:
    large, small = np.zeros((2, 6, 8), bool)
    large[1:6, 1:8] = True
    small[2:4, 2:4] = True
    picture = segments_picture(segments_of([small, large], (6, 8)))
    assert picture.shape == (6, 8, 3)
    assert (picture[~large] == 0).all()
    assert len(np.unique(picture[small], axis=0)) == len(np.unique(picture[large & ~small], axis=0)) == 1
    assert picture[2, 2].tolist() != picture[5, 5].tolist()
    assert np.array_equal(picture, segments_picture(segments_of([small, large], (6, 8))))


def test_segments_picture_edges() -> None:
    full = np.ones((3, 5), bool)
    assert (segments_picture(segments_of([full], (3, 5))) >= 64).all()
    assert not segments_picture(segments_of([], (3, 5))).any()
    assert segments_picture(segments_of([full], (3, 5)), (6, 11)).shape == (6, 11, 3)
