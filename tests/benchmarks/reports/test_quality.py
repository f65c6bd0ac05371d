"""The measure of masks against drawn objects."""

import numpy as np

from maskrt.benchmarks.reports.quality import instance_ious
from maskrt.runtime.rle import encode_rle
from maskrt.runtime.types import Segments


def _segments(masks):
    return Segments(
        size_hw=masks.shape[1:],
        rles=tuple(encode_rle(mask) for mask in masks),
        boxes_xyxy=np.zeros((len(masks), 4), np.int32),
        points_xy=np.zeros((len(masks), 2)),
        pred_iou=np.ones(len(masks), np.float32),
        stability_score=np.ones(len(masks), np.float32),
        area=masks.sum((1, 2)).astype(np.int64),
    )


def test_ious_equal_dense_computation_on_random_masks():
    rng = np.random.default_rng(0)
    instances = rng.integers(0, 4, (8, 6)).astype(np.uint16).repeat(11, 0).repeat(13, 1)
    masks = rng.random((5, 8, 6)) < 0.4
    masks = masks.repeat(11, 1).repeat(13, 2)
    ids, iou, covered = instance_ious(instances, _segments(masks))
    assert ids.tolist() == [i for i in range(4) if (instances == i).sum() >= 400]
    for n, mask in enumerate(masks):
        for k, identity in enumerate(ids):
            own = instances == identity
            assert iou[n, k] == (mask & own).sum() / (mask | own).sum()
    assert covered == masks.any(0).mean()


def test_small_objects_do_not_count_and_no_masks_are_no_error():
    instances = np.zeros((40, 40), np.uint16)
    instances[:19, :21] = 7  # 399 pixels
    ids, iou, covered = instance_ious(instances, _segments(np.zeros((0, 40, 40), bool)))
    assert ids.tolist() == [0]
    assert iou.shape == (0, 1)
    assert covered == 0
