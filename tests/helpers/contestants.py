"""Contestants for the benchmark harness; a module of its own, because spawned workers must be able to import it."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from maskrt.benchmarks.harness import measure


@dataclass(frozen=True)
class Timed:
    """Takes `seconds` of a clock that it moves itself, and reports the process and how often it was called."""

    seconds: float
    ballast_mb: int = 0

    def __call__(self) -> Callable[[], tuple[dict[str, float], Any]]:
        ballast = np.ones(self.ballast_mb * 10**6, np.uint8)
        calls = 0
        # The worker's own process: nobody else reads this clock.
        setattr(measure, "time", SimpleNamespace(perf_counter=lambda: calls * self.seconds))  # noqa: B010

        def iterate() -> tuple[dict[str, float], Any]:
            nonlocal calls
            calls += 1
            return {"count": float(calls)}, (os.getpid(), calls, ballast.size, "torch" in sys.modules)

        return iterate


@dataclass(frozen=True)
class Endless:
    """Never finishes an iteration."""

    def __call__(self) -> Callable[[], tuple[dict[str, float], Any]]:
        def iterate() -> tuple[dict[str, float], Any]:
            threading.Event().wait()
            raise AssertionError("nobody sets it")

        return iterate


@dataclass(frozen=True)
class Failing:
    """Fails in one way, when it is built or in the second iteration."""

    how: str
    when: str

    def __call__(self) -> Callable[[], tuple[dict[str, float], Any]]:
        if self.when == "build":
            self.fail()
        calls = 0

        def iterate() -> tuple[dict[str, float], Any]:
            nonlocal calls
            calls += 1
            if calls == 2:
                self.fail()
            return {}, None

        return iterate

    def fail(self) -> None:
        if self.how == "raise":
            raise ValueError("the reason\nand more")
        if self.how == "exit":
            sys.exit(7)
        if self.how == "die":
            os._exit(9)
        os.kill(os.getpid(), signal.SIGKILL)
