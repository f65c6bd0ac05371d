"""Box NMS: against the plain PyTorch implementation that stands in for torchvision's."""

import numpy as np
import pytest
import torch

from maskrt.benchmarks.peers.sam_upstream import batched_nms
from maskrt.kernels.nms.reference import box_nms


def expected(boxes, scores, iou_thresh):
    boxes = torch.from_numpy(boxes.astype(np.float32))
    return batched_nms(boxes, torch.from_numpy(scores), torch.zeros(len(boxes)), iou_thresh).tolist()


@pytest.mark.parametrize("iou_thresh", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("number", [0, 1, 2, 60])
def test_equal_to_oracle(rng, iou_thresh, dtype, number):
    for _ in range(3):
        corners = rng.integers(0, 30, (number, 2, 2))
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(dtype)  # some of area 0
        scores = rng.choice([0.0, 0.5, 0.9, 1.0], number).astype(np.float32)
        kept = box_nms(boxes, scores, iou_thresh)
        assert kept.dtype == np.int64
        assert kept.tolist() == expected(boxes, scores, iou_thresh)


def test_boxes_without_area_never_suppress_each_other():
    boxes = np.zeros((3, 4), np.int32)
    assert box_nms(boxes, np.array([0.1, 0.3, 0.2], np.float32), 0.5).tolist() == [1, 2, 0]


def test_threshold_is_exclusive_and_compared_in_double():
    # An IoU of exactly 7 / 10: float32 0.7 is below the double 0.7, so the box stays; at 0.5 == 0.5 it stays too.
    boxes = np.array([[0, 0, 10, 1], [0, 0, 7, 1]], np.float32)
    scores = np.array([1, 0.5], np.float32)
    assert float(np.float32(0.7)) < 0.7
    assert box_nms(boxes, scores, 0.7).tolist() == expected(boxes, scores, 0.7) == [0, 1]
    # float32 0.6 is above the double 0.6.
    boxes[1, 2] = 6
    assert box_nms(boxes, scores, 0.6).tolist() == expected(boxes, scores, 0.6) == [0]
    boxes[1, 2] = 5
    assert box_nms(boxes, scores, 0.5).tolist() == [0, 1]


def test_refuses_wrong_shapes():
    with pytest.raises(ValueError, match=r"\[N, 4\]"):
        box_nms(np.zeros((3, 4), np.float32), np.zeros(2, np.float32), 0.5)
