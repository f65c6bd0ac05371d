"""Counts, mask by mask, how our masks of an image differ from upstream's."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.rle import Rle, decode_rle
from maskrt.runtime.types import Segments

TIE_PIXELS = 2  # differing pixels that are always a tie
TIE_FRACTION = 1e-3  # and, for larger masks, differing pixels per pixel of upstream's mask


@dataclass(frozen=True)
class Equality:
    """Counts of masks: identical_rles + ties + different == masks.

    masks: pairs, plus every mask of either side that has no partner. identical_rles: same run lengths, box and area.
    ties: at most TIE_PIXELS or TIE_FRACTION of the pixels differ, which happens where a logit lies so close to the
    threshold that the last bits of two inference engines put it on opposite sides. different: everything else, with
    the unpaired masks. same_order: every pair has the same index on both sides. max_pred_iou_difference: the largest
    over all pairs.
    """

    masks: int
    identical_rles: int
    ties: int
    different: int
    same_order: bool
    max_pred_iou_difference: float

    @property
    def equal(self) -> bool:
        """Whether no mask differs by more than ties."""
        return self.different == 0


def compare_segments(ours: Segments, upstream: list[dict[str, Any]]) -> Equality:
    """Pair the masks that come from the same prompt point and count how they differ.

    A point yields up to three masks. Among them, pairs with the fewest differing pixels are formed first, so that a
    swap of rank between nearly equal predicted IoUs does not count as two wrong masks; `same_order` shows the swap.

    Args:
        ours: N masks.
        upstream: records of SamAutomaticMaskGenerator with output_mode="uncompressed_rle".
    """
    by_point: dict[tuple[float, ...], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for index, point in enumerate(ours.points_xy.tolist()):
        by_point[tuple(point)][0].append(index)
    for index, record in enumerate(upstream):
        by_point[tuple(record["point_coords"][0])][1].append(index)
    pairs = [pair for mine, theirs in by_point.values() for pair in _pairs(ours, upstream, mine, theirs)]
    identical = sum(_identical(ours, i, upstream[j]) for i, j, _ in pairs)
    close = sum(pixels <= tie_limit(upstream[j]["area"]) for _, j, pixels in pairs)
    # A mask with upstream's runs but another box or area is wrong, not a tie.
    inconsistent = sum(pixels == 0 and not _identical(ours, i, upstream[j]) for i, j, pixels in pairs)
    masks = len(ours) + len(upstream) - len(pairs)
    iou_differences = [abs(float(ours.pred_iou[i]) - upstream[j]["predicted_iou"]) for i, j, _ in pairs]
    return Equality(
        masks=masks,
        identical_rles=identical,
        ties=close - identical - inconsistent,
        different=masks - close + inconsistent,
        same_order=len(ours) == len(upstream) and all(i == j for i, j, _ in pairs),
        max_pred_iou_difference=max(iou_differences, default=0.0),
    )


def records(segments: Segments) -> list[dict[str, Any]]:
    """Return our own masks as records of SamAutomaticMaskGenerator, to compare two of our paths with each other."""
    boxes = segments.boxes_xyxy.tolist()
    return [
        {
            "segmentation": rle,
            "area": int(segments.area[i]),
            "bbox": [boxes[i][0], boxes[i][1], boxes[i][2] - boxes[i][0], boxes[i][3] - boxes[i][1]],
            "point_coords": [segments.points_xy[i].tolist()],
            "predicted_iou": float(segments.pred_iou[i]),
        }
        for i, rle in enumerate(segments.rles)
    ]


def tie_limit(area: int) -> int:
    """Return up to how many differing pixels a mask of `area` pixels counts as a tie."""
    return max(TIE_PIXELS, int(TIE_FRACTION * area))


def _pairs(
    ours: Segments, upstream: list[dict[str, Any]], mine: list[int], theirs: list[int]
) -> list[tuple[int, int, int]]:
    """Return (our index, upstream's index, differing pixels), the closest pair first; no index appears twice."""
    dense = {j: decode_rle(upstream[j]["segmentation"]) for j in theirs}
    scored = sorted((differing_pixels(ours.rles[i], dense[j]), abs(i - j), i, j) for i in mine for j in theirs)
    pairs: list[tuple[int, int, int]] = []
    for pixels, _, i, j in scored:
        if all(i != other_i and j != other_j for other_i, other_j, _ in pairs):
            pairs.append((i, j, pixels))
    return pairs


def differing_pixels(rle: Rle, mask: NDArray[np.bool_]) -> int:
    """Count the pixels in which run lengths and a mask, bool [H, W], differ; all of them if the sizes differ."""
    ours = decode_rle(rle)
    return mask.size if ours.shape != mask.shape else int((ours != mask).sum())


def _identical(ours: Segments, index: int, record: dict[str, Any]) -> bool:
    x0, y0, x1, y1 = ours.boxes_xyxy[index].tolist()
    box_xywh = [x0, y0, x1 - x0, y1 - y0]
    found = ours.rles[index], box_xywh, int(ours.area[index])
    return found == (record["segmentation"], record["bbox"], record["area"])
