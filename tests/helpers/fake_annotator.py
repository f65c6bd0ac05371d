"""An interactive session without networks: discs around the clicks on the object, less those around the others.

Run as a program it is `maskrt` with such sessions: python fake_annotator.py annotate BUNDLE IMAGES --out OUT.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError
from maskrt.runtime.interactive.clicks import Click

RADIUS = 6


def discs(size_hw: tuple[int, int], prompts: list[Any]) -> NDArray[np.bool_]:
    """The mask that the fake makes of clicks and of the last box."""
    height, width = size_hw
    mask = np.zeros(size_hw, np.bool_)
    boxes = [prompt for prompt in prompts if isinstance(prompt, tuple)]
    if boxes:
        x0, y0, x1, y1 = boxes[-1]
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    rows, columns = np.mgrid[:height, :width]
    for positive in (True, False):
        for click in prompts:
            if isinstance(click, Click) and click.positive is positive:
                mask[(columns - click.x) ** 2 + (rows - click.y) ** 2 <= RADIUS**2] = positive
    return mask


class FakeAnnotator:
    """Counts what is asked of it. `fail` maps the name of a method to an error that it raises."""

    def __init__(self) -> None:
        self.size_hw: tuple[int, int] | None = None
        self.mask: NDArray[np.bool_] | None = None
        self.steps = self.skipped_steps = 0
        self.decoder = "base"
        self.learnt = {"base": 0}
        self.images = 0
        self.fail: dict[str, Exception] = {}
        self.before: Callable[[], object] = lambda: None
        self._prompts: list[Any] = []

    @property
    def decoders(self) -> tuple[str, ...]:
        return tuple(self.learnt)

    @property
    def clicks(self) -> tuple[Click, ...]:
        return tuple(prompt for prompt in self._prompts if isinstance(prompt, Click))

    def set_image(self, rgb: NDArray[np.uint8]) -> None:
        self._called("set_image")
        self.size_hw = rgb.shape[0], rgb.shape[1]
        self.images += 1
        self._prompts, self.mask = [], None

    def click(self, x: int, y: int, positive: bool = True) -> NDArray[np.bool_]:
        self._called("click")
        height, width = self._size()
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(f"the click {x}, {y} is outside the image of {width} x {height}")
        self.steps += 1
        return self._with(Click(x, y, positive))

    def box(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
        height, width = self._size()
        if not (0 <= x0 < x1 < width and 0 <= y0 < y1 < height):
            raise InputError("the box is not inside the image")
        return self._with((x0, y0, x1, y1))

    def undo(self) -> NDArray[np.bool_] | None:
        self._prompts.pop()
        self.mask = discs(self._size(), self._prompts) if self._prompts else None
        return self.mask

    def reset(self) -> None:
        self._prompts, self.mask = [], None

    def accept(self) -> NDArray[np.bool_]:
        self._called("accept")
        if self.mask is None:
            raise InputError("nothing to accept")
        accepted = self.mask
        self.steps += 2
        self.learnt[self.decoder] += 1
        self.reset()
        return accepted

    def give_up(self) -> None:
        self._called("give_up")
        self.steps += 1
        self.learnt[self.decoder] += 1
        self.reset()

    def use(self, name: str) -> None:
        if self._prompts:
            raise InputError("only between objects")
        self.learnt.setdefault(name, 0)
        self.decoder = name

    def save_decoder(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.learnt[self.decoder]))

    def load_decoder(self, name: str, path: Path) -> None:
        self.learnt[name] = json.loads(path.read_text())

    def _called(self, name: str) -> None:
        self.before()
        if name in self.fail:
            raise self.fail[name]

    def _size(self) -> tuple[int, int]:
        if self.size_hw is None:
            raise InputError("no image is set")
        return self.size_hw

    def _with(self, prompt: Any) -> NDArray[np.bool_]:
        self._prompts.append(prompt)
        self.mask = discs(self._size(), self._prompts)
        return self.mask


def stand_in(session: FakeAnnotator, asked: dict[str, Any]) -> ModuleType:
    """A maskrt.runtime.interactive.session that opens this session, and notes what was asked for."""

    @contextmanager
    def open_interactive(
        bundle: Path, provider: str, threads: int | None, settings: dict[str, Any], cache_images: int
    ) -> Iterator[FakeAnnotator]:
        asked.update(settings, bundle=bundle, provider=provider, threads=threads, cache_images=cache_images)
        yield session

    module = ModuleType("maskrt.runtime.interactive.session")
    vars(module)["open_interactive"] = open_interactive
    return module


if __name__ == "__main__":
    from maskrt.cli.main import main

    sys.modules["maskrt.runtime.interactive.session"] = stand_in(FakeAnnotator(), {})
    main(sys.argv[1:])
