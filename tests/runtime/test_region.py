"""Regions of interest: their checks, and the way back to the frame."""

import numpy as np
import pytest

from maskrt.runtime.errors import InputError
from maskrt.runtime.region import checked_roi, fit_size_hw, in_frame, segments_in_frame
from maskrt.runtime.rle import decode_rle, encode_rle
from maskrt.runtime.types import Segments

FRAME = np.zeros((20, 30, 3), np.uint8)


def test_none_is_the_whole_frame() -> None:
    assert checked_roi(FRAME, None) == (0, 0, 30, 20)


@pytest.mark.parametrize("roi", [(0, 0, 30, 20), (29, 19, 1, 1), (3, 4, 5, 6)])
def test_inside(roi: tuple[int, int, int, int]) -> None:
    assert checked_roi(FRAME, roi) == roi


@pytest.mark.parametrize(
    "roi", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 31, 5), (0, 0, 5, 21), (30, 0, 1, 1), (5, 5, 0, 3), (5, 5, 3, -1)]
)
def test_outside(roi: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="does not lie in the 30 x 20 frame"):
        checked_roi(FRAME, roi)


@pytest.mark.parametrize(
    "rgb", [FRAME[..., 0], FRAME.astype(np.float32), np.zeros((0, 5, 3), np.uint8), FRAME[..., :2]]
)
def test_no_rgb_frame(rgb: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected an RGB frame"):
        checked_roi(rgb, None)


def test_back_in_the_frame(rng: np.random.Generator) -> None:
    masks = rng.random((3, 6, 7)) < 0.5
    segments = Segments(
        size_hw=(6, 7),
        rles=tuple(encode_rle(mask) for mask in masks),
        boxes_xyxy=np.array([[0, 0, 6, 5]] * 3, np.int32),
        points_xy=np.array([[1.5, 2.5]] * 3),
        pred_iou=np.ones(3, np.float32),
        stability_score=np.ones(3, np.float32),
        area=masks.sum(axis=(1, 2)),
    )
    moved = segments_in_frame(segments, (10, 4, 7, 6), (20, 30))
    for mask, rle in zip(masks, moved.rles, strict=True):
        expected = np.zeros((20, 30), bool)
        expected[4:10, 10:17] = mask
        assert np.array_equal(decode_rle(rle), expected)
        assert np.array_equal(in_frame(mask, (10, 4, 7, 6), (20, 30)), expected)
    assert moved.boxes_xyxy[0].tolist() == [10, 4, 16, 9]
    assert moved.points_xy[0].tolist() == [11.5, 6.5]
    assert segments_in_frame(segments, (0, 0, 7, 6), (6, 7)) is segments


@pytest.mark.parametrize(
    ("size_hw", "limit_hw", "expected"),
    [
        ((1080, 1920), (1024, 1024), (576, 1024)),
        ((10, 20), (64, 64), (32, 64)),
        ((2, 30000), (64, 64), (1, 64)),
        ((1, 1), (24, 32), (24, 24)),
    ],
)
def test_fit(size_hw: tuple[int, int], limit_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit_size_hw(size_hw, limit_hw) == expected
