"""Predicts masks for prompts with one interactive session, one prompt at a time; nothing is learnt."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Mask
from maskrt.runtime.errors import InputError
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.io.images import decode_image
from maskrt.runtime.serve.refused import invalid_image, invalid_request

Box = tuple[int, int, int, int]
T = TypeVar("T")
MOST_POINTS, MOST_BOXES = 64, 100  # of a request


class Image(Protocol):
    """A picture that a session has embedded."""

    @property
    def size_hw(self) -> tuple[int, int]: ...


class Session(Protocol):
    """A session as the predictor uses it; InteractiveSession is one. `image` may be set back to an earlier one."""

    image: Any

    def set_image(self, rgb: NDArray[np.uint8]) -> None: ...

    def predict(self, clicks: Sequence[Click], box: Box | None = None) -> Mask: ...


@dataclass(frozen=True)
class Prompt:
    """The prompt of one object: clicks, and a box x0, y0, x1, y1 in pixels, corners included."""

    clicks: tuple[Click, ...]
    box: Box | None = None


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Predictor:
    """A session for the requests of a server, which take turns: after each prompt, the next request has its turn."""

    def __init__(self, session: Session, max_pixels: int) -> None:
        self._session = session
        self._max_pixels = max_pixels
        self._turn = asyncio.Lock()  # whoever has waited longest is next
        self._last: tuple[bytes, Image] | None = None  # sha256 of the last picture, and what the session made of it

    async def draw(
        self,
        picture: bytes,
        prompts_in: Callable[[tuple[int, int]], Sequence[Prompt]],
        drawn: Callable[[Mask], T],
        is_gone: Callable[[], Awaitable[bool]],
    ) -> list[T]:
        """Return what `drawn` makes of each prompt's mask, bool [H, W].

        Args:
            picture: an image file; if it is the same as the last one, it is neither decoded nor encoded again.
            prompts_in: returns the prompts for a picture's height and width.
            drawn: called for one mask after the other, so that only one of them is in memory.
            is_gone: returns whether the client has gone.

        Raises:
            Refused: the picture cannot be used.
            InputError: a prompt cannot be used.
            ClientGone: the client has gone; the rest was left out.
        """
        digest = hashlib.sha256(picture).digest()
        image = self._known(digest)
        if image is None:
            image = await self._in_turn(lambda: self._image_of(digest, picture), is_gone)
        return [
            await self._in_turn(lambda prompt=prompt: drawn(self._mask(image, prompt)), is_gone)  # type: ignore[misc]
            for prompt in prompts_in(image.size_hw)
        ]

    async def _in_turn(self, work: Callable[[], T], is_gone: Callable[[], Awaitable[bool]]) -> T:
        from starlette.concurrency import run_in_threadpool

        async with self._turn:  # it also covers the decoding: one picture at a time bounds the memory
            if await is_gone():
                raise ClientGone
            return await run_in_threadpool(work)

    def _known(self, digest: bytes) -> Image | None:
        return self._last[1] if self._last is not None and self._last[0] == digest else None

    def _image_of(self, digest: bytes, picture: bytes) -> Image:
        image = self._known(digest)  # the request before may have brought the same picture
        if image is None:
            try:
                rgb = decode_image(picture, "the picture", self._max_pixels)
            except InputError as error:
                raise invalid_image(str(error)) from error
            self._session.set_image(rgb)
            image = self._session.image
            self._last = digest, image
        return image

    def _mask(self, image: Image, prompt: Prompt) -> Mask:
        self._session.image = image
        return self._session.predict(prompt.clicks, prompt.box)


def check_counts(points: int, boxes: int) -> None:
    """Check the number of prompts: 8,000 points took 2.3 GB, and 3,000 boxes 12 s with the demo's small decoder.

    Raises:
        Refused: there are too many.
    """
    for count, most, name in ((points, MOST_POINTS, "points"), (boxes, MOST_BOXES, "boxes")):
        if count > most:
            raise invalid_request(f"the request has {count} {name}: at most {most} are taken")


def prompts_of(clicks: Sequence[Click], boxes: Sequence[Box]) -> list[Prompt]:
    """Make a prompt of each box with all clicks, or of the clicks alone if there is no box."""
    if not boxes:
        return [Prompt(tuple(clicks))] if clicks else []
    return [Prompt(tuple(clicks), box) for box in boxes]


def click_at(xy: tuple[float, float], positive: bool, size_hw: tuple[int, int]) -> Click:
    """Return the click in the pixel under a point, which may lie on the picture's right or lower edge.

    Raises:
        Refused: the point lies outside.
    """
    x, y = xy
    height, width = size_hw
    if not (0 <= x <= width and 0 <= y <= height):
        raise invalid_request(f"a point at {x:g}, {y:g} lies outside the picture of {width} x {height}")
    return Click(min(int(x), width - 1), min(int(y), height - 1), positive)


def box_between(corner_xy: tuple[float, float], opposite_xy: tuple[float, float], size_hw: tuple[int, int]) -> Box:
    """Return the box between two opposite corners.

    Raises:
        Refused: a corner lies outside.
    """
    one, other = (click_at(xy, True, size_hw) for xy in (corner_xy, opposite_xy))
    return min(one.x, other.x), min(one.y, other.y), max(one.x, other.x), max(one.y, other.y)
