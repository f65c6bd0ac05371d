"""The normalisation that a segmenter was trained with, as people write it down."""

import math
from collections.abc import Sequence
from typing import Literal

from maskrt.runtime.errors import InputError

Scale = Literal[1, 255]


def of_unit(name: str, numbers: Sequence[float] | None, scale: Scale | None) -> tuple[float, ...] | None:
    """Return a mean or a standard deviation of RGB / 255.

    Args:
        name: "mean" or "std"; numbers: one for each channel, or None where none were given.
        scale: 1, they are of RGB / 255 already; 255, they are of RGB from 0 to 255; None, of RGB / 255, and then none
            may be above 1.

    Raises:
        InputError: a number is not finite, a standard deviation not above 0, or the scale must be said.
    """
    if numbers is None:
        return None
    if not all(math.isfinite(number) for number in numbers):
        raise InputError(f"{name} {tuple(numbers)}: give finite numbers")
    if name == "std" and min(numbers) <= 0:
        raise InputError(f"std {tuple(numbers)}: give numbers above 0")
    if scale not in (None, 1, 255):
        raise InputError(f"scale {scale}: the numbers are of RGB from 0 to 1 or to 255: give 1 or 255")
    if scale is None and max(numbers) > 1:
        raise InputError(
            f"{name} {tuple(numbers)} is above 1, and RGB / 255 is not: give --scale 255 where it is of RGB from 0 to "
            "255, or --scale 1 where it is meant so"
        )
    return tuple(number / scale for number in numbers) if scale == 255 else tuple(numbers)
