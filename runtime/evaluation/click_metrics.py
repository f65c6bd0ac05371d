"""How many clicks it takes, and how often so many do not suffice."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError


class Limit(msgspec.Struct, frozen=True):
    """What counts as success: an IoU of at least so many percent within so many clicks."""

    clicks: int
    iou_percent: float

    def __post_init__(self) -> None:
        if self.clicks < 1 or not 0 < self.iou_percent <= 100:
            raise InputError(f"limit {self.name}: expected 1 or more clicks, and an IoU over 0 and up to 100 percent")

    @property
    def name(self) -> str:
        """As 20@85."""
        return f"{self.clicks}@{self.iou_percent:g}"

    def reached(self, iou: float) -> bool:
        """Whether an IoU, 0 to 1, suffices."""
        return iou >= self.iou_percent / 100


class ClickFigures(msgspec.Struct, frozen=True):
    """Of some objects: noc, the mean number of clicks, a failure counting as all that were allowed; fr_percent, how
    many of a hundred failed. NaN without an object."""

    objects: int
    failures: int
    noc: float
    fr_percent: float


def click_figures(clicks: Sequence[int], ious: Sequence[float], limit: Limit) -> ClickFigures:
    """Number of clicks and failure rate, NoC_n@t and FR_n@t.

    Args:
        clicks: made on each object.
        ious: of each object's mask after them, 0 to 1.

    Raises:
        InputError: the two differ in length.

    Source: "Adapting the Segment Anything Model During Usage in Novel Situations", section 4.1.
    """
    if len(clicks) != len(ious):
        raise InputError(f"{len(clicks)} numbers of clicks and {len(ious)} IoUs: expected one of each per object")
    good = [count <= limit.clicks and limit.reached(iou) for count, iou in zip(clicks, ious, strict=True)]
    counted = [count if reached else limit.clicks for count, reached in zip(clicks, good, strict=True)]
    objects, failures = len(good), good.count(False)
    if not objects:
        return ClickFigures(0, 0, math.nan, math.nan)
    return ClickFigures(objects, failures, sum(counted) / objects, 100 * failures / objects)


def mask_iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Of two bool [H, W], what both have by what either has; 1 of two empty ones."""
    either = int(np.count_nonzero(mask | truth))
    return int(np.count_nonzero(mask & truth)) / either if either else 1.0
