"""A session whose masks follow from the prompt alone, and which remembers what it was asked."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.runtime.errors import InputError
from maskrt.runtime.interactive.clicks import Click


@dataclass(frozen=True)
class Seen:
    """A picture, of which the session keeps the size."""

    size_hw: tuple[int, int]


class FakeSession:
    """5 x 5 pixels around every positive click, without those around negative ones; or the box."""

    def __init__(self) -> None:
        self.pictures: list[NDArray[np.uint8]] = []
        self.image: Seen | None = None
        self.asked: list[tuple[tuple[Click, ...], tuple[int, int, int, int] | None]] = []
        self.failure: Exception | None = None

    def set_image(self, rgb: NDArray[np.uint8]) -> None:
        assert rgb.dtype == np.uint8
        assert rgb.ndim == 3
        self.pictures.append(rgb)
        self.image = Seen((rgb.shape[0], rgb.shape[1]))

    def predict(self, clicks: Sequence[Click], box: tuple[int, int, int, int] | None = None) -> NDArray[np.bool_]:
        if self.failure is not None:
            raise self.failure
        if not clicks and box is None:
            raise InputError("no prompt")
        self.asked.append((tuple(clicks), box))
        assert self.image is not None
        mask = np.zeros(self.image.size_hw, np.bool_)
        if box is not None:
            mask[box[1] : box[3] + 1, box[0] : box[2] + 1] = True
        for click in sorted(clicks, key=lambda click: not click.positive):
            mask[max(click.y - 2, 0) : click.y + 3, max(click.x - 2, 0) : click.x + 3] = click.positive
        return mask


def png(rgb: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()
