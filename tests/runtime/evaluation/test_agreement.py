"""The figures that a lower precision is trusted by count what they say."""

import numpy as np
import pytest

from maskrt.runtime.evaluation.agreement import AgreementCount, rle_iou, segments_iou
from maskrt.runtime.rle import encode_rle
from maskrt.runtime.types import Result, Roi, Segments


def segments(masks: np.ndarray) -> Segments:
    """Segments of bool [N, H, W]; points and scores do not matter here."""
    boxes = []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        boxes.append([columns.min(), rows.min(), columns.max(), rows.max()])
    count, zeros = len(masks), np.zeros(len(masks), np.float32)
    return Segments(
        size_hw=masks.shape[1:],
        rles=tuple(map(encode_rle, masks)),
        boxes_xyxy=np.array(boxes, np.int32).reshape(-1, 4),
        points_xy=np.zeros((count, 2)),
        pred_iou=zeros,
        stability_score=zeros,
        area=masks.sum(axis=(1, 2)),
    )


def result(label: np.ndarray, roi: Roi | None = None, masks: np.ndarray | None = None) -> Result:
    height, width = label.shape
    found = Segments.none(label.shape) if masks is None else segments(masks)
    whole = (0, 0, width, height)
    nothing = np.zeros((0, 0), np.float32)
    return Result(label == 1, label, nothing, roi or whole, found, np.zeros(len(found), np.int64))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (13, 7), (40, 31)])
def test_run_lengths_overlap_as_dense_masks(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    for density in (0, 0.1, 0.5, 0.9, 1):
        for other in (0, 0.3, 1):
            ours, theirs = rng.random(shape) < density, rng.random(shape) < other
            either = (ours | theirs).sum()
            expected = (ours & theirs).sum() / either if either else 1.0
            assert rle_iou(encode_rle(ours), encode_rle(theirs)) == expected


def test_masks_of_two_sizes() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3\] and \[3, 2\] pixels"):
        rle_iou(encode_rle(np.ones((2, 3), bool)), encode_rle(np.ones((3, 2), bool)))


def test_every_segment_counts_on_both_sides() -> None:
    masks = np.zeros((3, 20, 20), bool)
    masks[0, 2:6, 2:6], masks[1, 10:18, 10:14], masks[2, 10:18, 10:18] = True, True, True
    assert segments_iou(segments(masks), segments(masks[::-1])) == 1
    # The one that is missing has half of itself within the larger one, whose box is the nearest.
    assert segments_iou(segments(masks), segments(masks[[0, 2]])) == pytest.approx((1 + 0.5 + 1 + 1 + 1) / 5)
    assert segments_iou(segments(masks), Segments.none((20, 20))) == 0


def test_frames_are_pooled() -> None:
    label, other = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    label[2:6, 2:6], other[2:6, 2:8] = 1, 1
    block = (label == 1)[None]
    count = AgreementCount()
    assert count.add(result(label, masks=block), result(label, masks=block)) == 1
    assert count.add(result(label, masks=block), result(other)) == pytest.approx(16 / 24)
    assert count.add(result(other * 0), result(other * 0)) is None
    found = count.total()
    assert found is not None
    assert (found.frames, found.worst_iou) == (2, pytest.approx(2 / 3))
    assert found.mean_iou == pytest.approx((1 + 2 / 3) / 2)
    assert found.label_difference == pytest.approx(8 / 300)
    assert found.segments_iou == pytest.approx(0.5)


def test_only_the_region_counts() -> None:
    label, other = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    label[1:3, 1:3] = other[1:3, 1:3] = 1
    other[1, 1] = 2
    count = AgreementCount()
    count.add(result(label, (0, 0, 4, 4)), result(other, (0, 0, 4, 4)))
    found = count.total()
    assert found is not None
    assert (found.label_difference, found.segments_iou) == (1 / 16, None)


def test_nothing_seen_is_no_agreement() -> None:
    count = AgreementCount()
    count.add(result(np.zeros((3, 3), np.uint8)), result(np.full((3, 3), 2, np.uint8)))
    assert count.total() is None
