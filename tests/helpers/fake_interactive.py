"""A session that draws disks around clicks, as large as it has learnt; what it learns hangs on all that came before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.errors import InputError
from maskrt.runtime.interactive.clicks import Click


class FakeSession:
    """radius: its only weight. stop_after: raises KeyboardInterrupt at that click, counted over all objects."""

    def __init__(self, stop_after: int | None = None, **options: Any) -> None:
        self.options = options
        self.stop_after = stop_after
        self.radius = np.full(1, 6.0)
        self.steps = self.skipped_steps = 0
        self.clicked = 0
        self.images = 0
        self.clicks: tuple[Click, ...] = ()
        self.rgb: np.ndarray | None = None

    def set_image(self, rgb: np.ndarray) -> None:
        assert rgb.dtype == np.uint8
        self.images += 1
        self.rgb, self.clicks = rgb, ()

    def click(self, x: int, y: int, positive: bool = True) -> np.ndarray:
        self.clicked += 1
        if self.clicked == self.stop_after:
            raise KeyboardInterrupt
        self.clicks += (Click(x, y, positive),)
        return self.drawn()

    def accept(self) -> np.ndarray:
        if not self.clicks:
            raise InputError("nothing to accept: click first")
        mask = self.drawn()
        if self.options["result_mask"] != "off":
            self.steps += 1
            self.skipped_steps += len(self.clicks) == 3
            self.radius = self.radius * 0.9 + 0.05 * np.sqrt(np.count_nonzero(mask)) + len(self.clicks) / 7
        self.clicks = ()
        return mask

    def give_up(self, learn: bool = True) -> None:
        if learn and self.options["click_mask"]:
            self.steps += 1
            self.radius = self.radius + len(self.clicks) / 11
        self.clicks = ()

    def drawn(self) -> np.ndarray:
        assert self.rgb is not None
        height, width = self.rgb.shape[:2]
        rows, columns = np.mgrid[:height, :width]
        mask = np.zeros((height, width), np.bool_)
        for click in self.clicks:
            reach = self.radius[0] if click.positive else 2
            mask[(rows - click.y) ** 2 + (columns - click.x) ** 2 <= reach**2] = click.positive
        return mask

    def state(self) -> dict[str, np.ndarray]:
        assert not self.clicks
        return {"radius": self.radius.copy(), "counters": np.array([self.steps, self.skipped_steps])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        assert not self.clicks
        self.radius = state["radius"].copy()
        self.steps, self.skipped_steps = (int(count) for count in state["counters"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass


class FakeOpener:
    """open_interactive of FakeSessions; keeps them. stop_after: of the sessions that it opens from now on."""

    def __init__(self) -> None:
        self.sessions: list[FakeSession] = []
        self.stop_after: int | None = None

    def __call__(
        self, bundle: Bundle, provider: str, threads: int | None, settings: Mapping[str, Any], *, cache_dir: Path
    ) -> FakeSession:
        self.sessions.append(FakeSession(self.stop_after, **settings, cache_dir=cache_dir))
        return self.sessions[-1]
