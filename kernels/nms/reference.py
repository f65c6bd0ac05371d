"""The definition of non-maximum suppression, in plain NumPy; the CPU's set uses it too."""

import numpy as np
from numpy.typing import NDArray


def box_nms(
    boxes: NDArray[np.float32] | NDArray[np.int32], scores: NDArray[np.float32], iou_thresh: float
) -> NDArray[np.int64]:
    """Keep the best box of every cluster of overlapping ones.

    Boxes are visited in descending score, equal scores in their given order. A kept box drops every later one whose
    IoU with it is above `iou_thresh`. Areas have no `+ 1`; two boxes of area 0 have the IoU NaN, which drops nothing.

    Args:
        boxes: float32 or int32 [N, 4], x0 y0 x1 y1 in pixels.
        scores: float32 [N].
        iou_thresh: 0 to 1.

    Returns:
        int64 indices of the kept boxes, in descending score.

    Raises:
        ValueError: the shapes differ from the above.

    Source: torchvision.ops.nms (nms_kernel.cpp), whose float32 arithmetic this repeats.
    """
    check_boxes(boxes, scores)
    order, (x0, y0, x1, y1), area = in_order(boxes, scores)
    alive = np.ones(len(order), np.bool_)
    kept = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        rest = i + 1 + np.flatnonzero(alive[i + 1 :])
        width = np.maximum(np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest]), np.float32(0))
        height = np.maximum(np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest]), np.float32(0))
        shared = width * height
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = shared / (area[i] + area[rest] - shared)
        # torchvision compares the float32 IoU with a double threshold; NumPy would round the threshold to float32.
        alive[rest[iou.astype(np.float64) > iou_thresh]] = False
    return order[kept].astype(np.int64)


def in_order(
    boxes: NDArray[np.float32] | NDArray[np.int32], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Sort the boxes in the order of visits.

    Returns:
        The boxes' indices; x0, y0, x1, y1 of the boxes, float32 [4, N]; and their areas [N]; all in that order.
    """
    order = np.argsort(-scores, kind="stable")
    edges = np.ascontiguousarray(boxes[order].T, dtype=np.float32)
    x0, y0, x1, y1 = edges
    return order, edges, (x1 - x0) * (y1 - y0)


def check_boxes(boxes: NDArray[np.float32] | NDArray[np.int32], scores: NDArray[np.float32]) -> None:
    """Raise ValueError unless the arguments are as `box_nms` wants them."""
    if boxes.shape != (len(scores), 4) or scores.ndim != 1:
        raise ValueError(f"expected boxes [N, 4] and scores [N], got {list(boxes.shape)} and {list(scores.shape)}")
