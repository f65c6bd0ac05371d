"""Predicts masks for prompts with one interactive session, one request at a time; nothing is learnt."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Mask
from maskrt.runtime.errors import InputError
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.io.images import decode_image
from maskrt.runtime.serve.refused import Refused, invalid_image, invalid_request
from maskrt.runtime.serve.turns import Turns, client_has_gone

Box = tuple[int, int, int, int]

MOST_POINTS, MOST_BOXES = 64, 100  # of one request
AT_A_TIME = 8  # prompts of a request before another request gets its turn


class Session(Protocol):
    """A session as the predictor uses it; InteractiveSession is one."""

    def set_image(self, rgb: NDArray[np.uint8]) -> None: ...

    def predict(self, clicks: Sequence[Click], box: Box | None = None) -> Mask: ...


@dataclass(frozen=True)
class Prompt:
    """The prompt of one object: clicks, and a box x0, y0, x1, y1 in pixels, corners included."""

    clicks: tuple[Click, ...]
    box: Box | None = None


class Predictor:
    """A session behind a lock, for the threads of a server."""

    def __init__(self, session: Session, max_pixels: int) -> None:
        self._session = session
        self._max_pixels = max_pixels
        self._turns = Turns()
        self._digest = b""  # sha256 of the picture that the session holds
        self._size_hw = (0, 0)

    def masks(self, picture: bytes, prompts_in: Callable[[tuple[int, int]], Sequence[Prompt]]) -> list[Mask]:
        """Return one mask, bool [H, W], per prompt.

        Args:
            picture: an image file; if it is the same as the last one, it is neither decoded nor encoded again.
            prompts_in: returns the prompts for a picture's height and width.

        Raises:
            Refused: the picture cannot be used, or the client has gone.
            InputError: a prompt cannot be used.
        """
        digest = hashlib.sha256(picture).digest()
        masks: list[Mask] = []
        prompts: Sequence[Prompt] | None = None
        while prompts is None or len(masks) < len(prompts):
            with self._turns.turn():  # it also covers the decoding: one picture at a time bounds the memory
                if client_has_gone():
                    raise Refused(499, "CLIENT_GONE", "the client closed the connection: its prompts are left")
                if digest != self._digest:
                    self._set_image(picture)
                    self._digest = digest
                if prompts is None:
                    prompts = prompts_in(self._size_hw)
                some = prompts[len(masks) : len(masks) + AT_A_TIME]
                masks += [self._session.predict(prompt.clicks, prompt.box) for prompt in some]
        return masks

    def _set_image(self, picture: bytes) -> None:
        try:
            rgb = decode_image(picture, "the picture", self._max_pixels)
        except InputError as error:
            raise invalid_image(str(error)) from error
        self._digest = b""
        self._session.set_image(rgb)
        self._size_hw = rgb.shape[0], rgb.shape[1]


def prompts_of(clicks: Sequence[Click], boxes: Sequence[Box]) -> list[Prompt]:
    """Make a prompt of each box with all clicks, or of the clicks alone if there is no box.

    Raises:
        Refused: there are more than MOST_POINTS clicks or MOST_BOXES boxes.
    """
    if len(clicks) > MOST_POINTS or len(boxes) > MOST_BOXES:
        raise invalid_request(
            f"{len(clicks)} points and {len(boxes)} boxes: send at most {MOST_POINTS} and {MOST_BOXES}"
        )
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
