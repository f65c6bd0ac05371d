"""The taps by which an axis is sampled."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from maskrt.kernels.arrays import Floats, Indices

OUTSIDE = -1


@dataclass(frozen=True)
class Taps:
    """The two values that make each of n places along an axis: (1 - share) * value[low] + share * value[high].

    low, high: int64 [n], OUTSIDE for a place beyond the picture, which is 0; share: float32 [n].
    """

    low: Indices
    high: Indices
    share: Floats

    def through(self, places: Indices) -> Self:
        """Return the taps on an axis whose index i shows places[i] of another one."""
        low, high = (np.where(index == OUTSIDE, OUTSIDE, places[index]) for index in (self.low, self.high))
        return type(self)(low, high, self.share)
