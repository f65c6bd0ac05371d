"""Number of clicks (NoC) and failure rate (FR): how many clicks objects take, and how often they do not suffice."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError


class Limit(msgspec.Struct, frozen=True):
    """A limit for success: an IoU of at least so many percent within so many clicks."""

    clicks: int
    iou_percent: float

    def __post_init__(self) -> None:
        if self.clicks < 1 or not 0 < self.iou_percent <= 100:
            raise InputError(f"limit {self.name}: expected 1 or more clicks, and an IoU over 0 and up to 100 percent")

    @property
    def name(self) -> str:
        """The limit as text, such as 20@85."""
        return f"{self.clicks}@{self.iou_percent:g}"

    def reached(self, iou: float) -> bool:
        """Return whether an IoU, 0 to 1, suffices."""
        return iou >= self.iou_percent / 100


class ClickFigures(msgspec.Struct, frozen=True):
    """Click figures of some objects; noc and fr_percent are NaN without an object.

    noc: the mean number of clicks, where a failure counts as all that were allowed; fr_percent: how many of a hundred
    objects failed.
    """

    objects: int
    failures: int
    noc: float
    fr_percent: float


def click_figures(
    clicks: Sequence[int], ious: Sequence[float], limit: Limit, last_click_fails: bool = False
) -> ClickFigures:
    """Compute number of clicks and failure rate, NoC_n@t and FR_n@t.

    Args:
        clicks: number of clicks on each object.
        ious: IoU of each object's mask after them, 0 to 1.
        last_click_fails: an object that took all clicks has failed, whatever its mask, as in the later public code.

    Raises:
        InputError: the two differ in length.

    Source: "Adapting the Segment Anything Model During Usage in Novel Situations", section 4.1.
    """
    if len(clicks) != len(ious):
        raise InputError(f"{len(clicks)} numbers of clicks and {len(ious)} IoUs: expected one of each per object")
    most = limit.clicks - 1 if last_click_fails else limit.clicks
    good = [count <= most and limit.reached(iou) for count, iou in zip(clicks, ious, strict=True)]
    counted = [count if reached else limit.clicks for count, reached in zip(clicks, good, strict=True)]
    objects, failures = len(good), good.count(False)
    if not objects:
        return ClickFigures(0, 0, math.nan, math.nan)
    return ClickFigures(objects, failures, sum(counted) / objects, 100 * failures / objects)


def mask_iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the IoU of two masks, bool [H, W]; two empty masks have 1."""
    either = int(np.count_nonzero(mask | truth))
    return int(np.count_nonzero(mask & truth)) / either if either else 1.0
