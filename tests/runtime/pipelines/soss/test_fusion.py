"""Voting and painting, by hand-made cases and against the dense peer."""

import numpy as np
import pytest

from maskrt.benchmarks.peers.dense_voting import dense_vote
from maskrt.runtime.bundle.specs import VotingSpec
from maskrt.runtime.pipelines.soss.fusion import fuse
from maskrt.runtime.rle import encode_rle
from maskrt.runtime.types import Segments


def segments_of(masks, size_hw=(4, 6)):
    masks = np.asarray(masks, np.bool_).reshape(-1, *size_hw)
    number = len(masks)
    return Segments(
        size_hw=size_hw,
        rles=tuple(encode_rle(mask) for mask in masks),
        boxes_xyxy=np.zeros((number, 4), np.int32),
        points_xy=np.zeros((number, 2)),
        pred_iou=np.zeros(number, np.float32),
        stability_score=np.zeros(number, np.float32),
        area=masks.sum(axis=(1, 2)),
    )


def columns(first, stop):
    mask = np.zeros((4, 6), np.bool_)
    mask[:, first:stop] = True
    return mask


def certain(label, classes):
    """Probabilities of 0.9 for the given class and the rest evenly."""
    planes = np.arange(classes)[:, None, None] == np.asarray(label)
    return np.where(planes, 0.9, 0.1 / (classes - 1)).astype(np.float32)


LEFT_HALF = np.tile([1, 1, 1, 0, 0, 0], (4, 1))


@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_two_classes_or_over_segments(vote):
    # 2 of 3 columns are class 1; all six: a tie, class 0; a class 0 segment over a class 1 segment takes nothing away.
    masks = [columns(1, 4), columns(0, 6), columns(3, 6)]
    label, classes = fuse(certain(LEFT_HALF, 2), segments_of(masks), VotingSpec(vote=vote))
    assert classes.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(label, columns(1, 4))
    assert label.dtype == np.uint8


def test_two_classes_equal_the_dense_peer(rng, blobs):
    painted = 0
    for _ in range(5):
        logits = blobs(rng, 60, 80)
        probabilities = np.stack([1 / (1 + np.exp(logits)), 1 / (1 + np.exp(-logits))]).astype(np.float32)
        masks = np.array([blobs(rng, 60, 80) > 1 for _ in range(7)])
        segments = segments_of(masks, (60, 80))
        kept, _ = fuse(probabilities, segments, VotingSpec(uncovered="segmenter"))
        np.testing.assert_array_equal(kept, dense_vote(probabilities, masks, "segmenter"))
        label, _ = fuse(probabilities, segments, VotingSpec())
        np.testing.assert_array_equal(label, dense_vote(probabilities, masks))
        painted += 0 < label.sum() < label.size
    assert painted >= 2


def test_more_classes_smaller_segment_wins():
    small, large = columns(1, 3), columns(0, 5)
    wanted = np.tile([2, 1, 1, 2, 2, 0], (4, 1))
    for masks, expected in (([small, large], [1, 2]), ([large, small], [2, 1])):
        label, classes = fuse(certain(wanted, 3), segments_of(masks), VotingSpec())
        assert classes.tolist() == expected
        np.testing.assert_array_equal(label, wanted)


def test_more_classes_equal_areas_later_wins():
    wanted = np.tile([2, 2, 2, 1, 1, 1], (4, 1))
    label, _ = fuse(certain(wanted, 3), segments_of([columns(0, 4), columns(2, 6)]), VotingSpec())
    np.testing.assert_array_equal(label, np.tile([2, 2, 1, 1, 1, 1], (4, 1)))


def test_soft_and_hard_votes_differ():
    # Two columns are barely class 1, one is surely class 0.
    probabilities = certain(np.zeros((4, 6), np.int64), 2)
    probabilities[:, :, :2] = np.array([0.45, 0.55], np.float32)[:, None, None]
    segments = segments_of([columns(0, 3)])
    assert fuse(probabilities, segments, VotingSpec(vote="soft"))[1].tolist() == [0]
    assert fuse(probabilities, segments, VotingSpec(vote="hard"))[1].tolist() == [1]


@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_ties_go_to_the_lower_class(vote):
    even = np.full((3, 4, 6), 0.25, np.float32)
    even[1:] = 0.375
    assert fuse(even, segments_of([columns(0, 3)]), VotingSpec(vote=vote))[1].tolist() == [1]


@pytest.mark.parametrize("classes", [2, 4])
def test_uncovered_pixels(classes):
    probabilities = certain(LEFT_HALF, classes)
    segments = segments_of([columns(2, 6)])  # voted class 0
    background, _ = fuse(probabilities, segments, VotingSpec(uncovered="background"))
    np.testing.assert_array_equal(background, np.zeros((4, 6)))
    segmenter, _ = fuse(probabilities, segments, VotingSpec(uncovered="segmenter"))
    np.testing.assert_array_equal(segmenter, columns(0, 2))


@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_no_segments(vote):
    probabilities = certain(LEFT_HALF, 2)
    label, classes = fuse(probabilities, segments_of([]), VotingSpec(vote=vote))
    assert classes.shape == (0,)
    np.testing.assert_array_equal(label, np.zeros((4, 6)))
    label, _ = fuse(probabilities, segments_of([]), VotingSpec(vote=vote, uncovered="segmenter"))
    np.testing.assert_array_equal(label, LEFT_HALF)
