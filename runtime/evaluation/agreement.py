"""Measures how near one pipeline's answers come to another's, which decides whether a lower precision is kept."""

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.bundle.manifest import Agreement
from maskrt.runtime.rle import Rle
from maskrt.runtime.types import Result, Segments

Boxes = NDArray[np.int32]


class AgreementCount:
    """A count of how two pipelines agree, frame after frame."""

    def __init__(self) -> None:
        self._ious: list[float] = []
        self._segments: list[float] = []
        self._pixels = self._differing = 0

    def add(self, reference: Result, found: Result) -> float | None:
        """Count one frame that both pipelines saw.

        Returns:
            The IoU of the two masks; None if both are empty, which shows nothing and does not count.
        """
        x, y, width, height = reference.roi_xywh
        region = slice(y, y + height), slice(x, x + width)
        self._pixels += width * height
        self._differing += int(np.count_nonzero(reference.label[region] != found.label[region]))
        if len(reference.segments) or len(found.segments):
            self._segments.append(segments_iou(reference.segments, found.segments))
        either = int(np.count_nonzero(reference.mask | found.mask))
        if either == 0:
            return None
        self._ious.append(int(np.count_nonzero(reference.mask & found.mask)) / either)
        return self._ious[-1]

    def total(self) -> Agreement | None:
        """Return the agreement over all frames; None if no frame had a mask."""
        if not self._ious:
            return None
        return Agreement(
            frames=len(self._ious),
            mean_iou=float(np.mean(self._ious)),
            worst_iou=min(self._ious),
            label_difference=self._differing / self._pixels,
            segments_iou=float(np.mean(self._segments)) if self._segments else None,
        )


def segments_iou(ours: Segments, theirs: Segments) -> float:
    """Return the mean over all masks of both sides of the IoU with the other side's mask whose box fits best.

    It is 0 if one side has no mask.
    """
    if not len(ours) or not len(theirs):
        return 0.0
    boxes = _box_iou(ours.boxes_xyxy, theirs.boxes_xyxy)
    there = [rle_iou(rle, theirs.rles[best]) for rle, best in zip(ours.rles, boxes.argmax(axis=1), strict=True)]
    back = [rle_iou(rle, ours.rles[best]) for rle, best in zip(theirs.rles, boxes.argmax(axis=0), strict=True)]
    return float(np.mean(there + back))


def rle_iou(ours: Rle, theirs: Rle) -> float:
    """Return the IoU of two masks of one size; two empty masks have 1.

    Raises:
        ValueError: the sizes differ.
    """
    if ours["size"] != theirs["size"]:
        raise ValueError(f"masks of {ours['size']} and {theirs['size']} pixels cannot be compared")
    ends, covered = _covered(ours)
    edges = np.cumsum(theirs["counts"])
    starts, stops = edges[0::2][: len(edges) // 2], edges[1::2]
    shared = int((np.interp(stops, ends, covered) - np.interp(starts, ends, covered)).sum())
    union = int(covered[-1]) + int((stops - starts).sum()) - shared
    return shared / union if union else 1.0


def _covered(rle: Rle) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the runs end, from 0 on, and how many foreground pixels lie before; linear between is exact."""
    counts = np.array([0, *rle["counts"]], np.int64)
    foreground = np.where(np.arange(counts.size) % 2 == 0, counts, 0)
    return np.cumsum(counts), np.cumsum(foreground)


def _box_iou(ours: Boxes, theirs: Boxes) -> NDArray[np.float64]:
    """Return the IoU of every pair of boxes, float64 [N, M]; a box's last pixel is inclusive."""
    first = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    last = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    shared = np.maximum(last - first + 1, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1) for boxes in (ours, theirs)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / union, np.float64)
