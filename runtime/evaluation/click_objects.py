"""Pictures with objects to click on: plans them all, then reads them one at a time."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError
from maskrt.runtime.io.masks import read_labels
from maskrt.runtime.io.records import sha256_of_pixels
from maskrt.runtime.io.sources import Source
from maskrt.runtime.types import BadFrame, Frame, Labels


@dataclass(frozen=True)
class Planned:
    """A picture that can be evaluated; labels: its objects', ascending; sha256: of its pixels and its truth."""

    name: str
    labels: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class ClickPicture:
    """A picture with its truth.

    rgb: uint8 [H, W, 3]; truth: uint8 or uint16 [H, W], 0 is the ground and every other value is an object.
    """

    planned: Planned
    rgb: NDArray[np.uint8]
    truth: Labels


@dataclass
class Survey:
    """The result of a survey; left_out: objects that are too small; failed: picture's name -> why it is unusable."""

    planned: list[Planned]
    left_out: int
    failed: dict[str, str]

    @property
    def objects(self) -> int:
        """Number of objects to segment."""
        return sum(len(picture.labels) for picture in self.planned)

    def sha256(self) -> str:
        """Return the sha256 of all pictures and objects, in their order."""
        lines = (f"{picture.name} {picture.labels} {picture.sha256}\n" for picture in self.planned)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def survey(
    source: Source,
    truth: Path,
    min_area: int,
    max_pixels: int,
    on_progress: Callable[[str, str | None], None] = lambda name, reason: None,
) -> Survey:
    """Look at every picture and its truth once.

    Args:
        truth: folder with a STEM.png per picture, see ClickPicture.truth.
        min_area: pixels; smaller objects are left out.
        max_pixels: larger truths are not read.
        on_progress: called with every picture's name, and why it cannot be used, or None.
    """
    found = Survey([], 0, {})
    for item in source:
        reason = None
        try:
            planned, left_out = _planned(item, truth, min_area, max_pixels)
            found.left_out += left_out
            if planned.labels:
                found.planned.append(planned)
        except InputError as error:
            reason = found.failed[item.name] = str(error)
        on_progress(item.name, reason)
    return found


def read_pictures(source: Source, truth: Path, planned: Sequence[Planned], max_pixels: int) -> Iterator[ClickPicture]:
    """Read the planned pictures one at a time, in their order.

    Raises:
        InputError: a picture has changed since it was planned.
    """
    by_name = {picture.name: picture for picture in planned}
    for item in source:
        expected = by_name.get(item.name)
        if expected is None:
            continue
        if isinstance(item, BadFrame):
            raise InputError(item.reason)
        labels = read_labels(truth / f"{item.name}.png", max_pixels)
        if _sha256(item.rgb, labels) != expected.sha256:
            raise InputError(f"{item.name}: the picture or its truth has changed meanwhile: start again")
        yield ClickPicture(expected, item.rgb, labels)


def _planned(item: Frame | BadFrame, truth: Path, min_area: int, max_pixels: int) -> tuple[Planned, int]:
    """Return a picture's plan, and how many objects are too small for it."""
    if isinstance(item, BadFrame):
        raise InputError(item.reason)
    file = truth / f"{item.name}.png"
    labels = read_labels(file, max_pixels)
    if labels.shape != item.rgb.shape[:2]:
        raise InputError(
            f"{file} is {labels.shape[1]} x {labels.shape[0]}, the image {item.rgb.shape[1]} x {item.rgb.shape[0]}: "
            "both must come from the same frame, unscaled"
        )
    areas = np.bincount(labels.ravel())
    objects = np.flatnonzero(areas[1:]) + 1
    if objects.size == 0:
        raise InputError(f"{file} holds no object, all is 0: leave the image out, or mark its objects")
    large = objects[areas[objects] >= min_area]
    planned = Planned(item.name, tuple(int(label) for label in large), _sha256(item.rgb, labels))
    return planned, objects.size - large.size


def _sha256(rgb: NDArray[np.uint8], truth: Labels) -> str:
    both = f"{sha256_of_pixels(rgb)} {sha256_of_pixels(truth.view(np.uint8))}"
    return hashlib.sha256(both.encode()).hexdigest()
