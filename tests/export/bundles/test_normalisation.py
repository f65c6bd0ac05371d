"""Mean and standard deviation are of RGB / 255, or of 0 to 255 where that is said; never guessed."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from maskrt.export.bundles.normalisation import of_unit
from maskrt.runtime.errors import InputError


@pytest.mark.parametrize(
    ("numbers", "scale", "expected"),
    [
        (None, None, None),
        ((0.485, 0.456, 0.406), None, (0.485, 0.456, 0.406)),
        ((128, 128, 128), 255, (128 / 255,) * 3),
        ((0.5, 0.5, 0.5), 255, (0.5 / 255,) * 3),
        ((2.0, 2.0, 2.0), 1, (2.0, 2.0, 2.0)),
        ((0.0, 1.0, -0.5), None, (0.0, 1.0, -0.5)),
    ],
)
def test_units(numbers: Sequence[float] | None, scale: Any, expected: tuple[float, ...] | None) -> None:
    assert of_unit("mean", numbers, scale) == expected


@pytest.mark.parametrize(
    ("name", "numbers", "scale", "message"),
    [
        ("mean", (123.675, 116.28, 103.53), None, r"mean \(123\.675, .*\) is above 1.*give --scale 255"),
        ("std", (58.4, 57.1, 57.4), None, "std .* is above 1"),
        ("mean", (0.5, math.nan, 0.5), None, "give finite numbers"),
        ("std", (0.5, math.inf, 0.5), 255, "give finite numbers"),
        ("std", (0.5, 0.0, 0.5), None, "give numbers above 0"),
        ("mean", (0.5,), 2, "scale 2: .*give 1 or 255"),
    ],
)
def test_refused(name: str, numbers: Sequence[float], scale: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        of_unit(name, numbers, scale)
