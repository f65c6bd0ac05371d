"""Non-maximum suppression on a GPU: every pair of boxes is compared at once, then the kept ones are picked in order."""

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from maskrt.kernels import device
from maskrt.kernels.arrays import Floats
from maskrt.kernels.device import product
from maskrt.kernels.nms.reference import check_boxes, in_order

Words = NDArray[np.uint64]

BITS = 64


def box_nms(boxes: Floats | NDArray[np.int32], scores: Floats, iou_thresh: float) -> NDArray[np.int64]:
    """Keep the best box of every cluster of overlapping ones.

    Args:
        boxes: float32 or int32 [N, 4], x0 y0 x1 y1 in pixels.
        scores: float32 [N].
        iou_thresh: 0 to 1.

    Returns:
        int64 indices of the kept boxes, in descending score.

    Raises:
        ValueError: the shapes differ from the above.

    Source: reference.box_nms is the definition.
    """
    check_boxes(boxes, scores)
    order, edges, area = in_order(boxes, scores)
    words = -(-order.size // BITS)
    overlaps = device.empty((order.size, words), np.uint64)
    device.launch(_compare, overlaps.size, device.to_device(edges), device.to_device(area), iou_thresh, overlaps)
    drops = device.to_host(overlaps)
    dropped, kept = np.zeros(words, np.uint64), []
    for i in range(order.size):
        if not int(dropped[i // BITS]) >> i % BITS & 1:
            kept.append(i)
            dropped |= drops[i]
    return order[kept].astype(np.int64)


@device.kernel
def _compare(edges: Floats, area: Floats, iou_thresh: float, overlaps: Words) -> None:
    """Set bit j % 64 of overlaps[i, j // 64] where box i, when it is kept, drops box j behind it."""
    count, words = overlaps.shape
    x0, y0, x1, y1 = edges[0], edges[1], edges[2], edges[3]
    zero = np.float32(0)
    for task in range(cuda.grid(1), count * words, cuda.gridsize(1)):
        i, word = task // words, task % words
        bits = np.uint64(0)
        for j in range(max(i + 1, word * BITS), min(count, (word + 1) * BITS)):
            width = max(min(x1[i], x1[j]) - max(x0[i], x0[j]), zero)
            height = max(min(y1[i], y1[j]) - max(y0[i], y0[j]), zero)
            shared = product(width, height)
            union = area[i] + area[j] - shared
            # Without an area there is no ratio. Compared in double, as the definition does.
            if union > zero and np.float64(shared / union) > iou_thresh:
                bits |= np.uint64(1) << np.uint64(j - word * BITS)
        overlaps[i, word] = bits
