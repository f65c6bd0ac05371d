"""Shows progress on stderr: a bar on a terminal, a line every ten seconds elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maskrt.cli.say import say
from maskrt.runtime.io.sources import Source
from maskrt.runtime.text import printable

EVERY_S = 10.0
NOTES = 50  # that are shown


class FrameProgress:
    """Progress over items; `report` prints a line without breaking the bar; total: None if it is not known."""

    def __init__(self, total: int | None, unit: str = "frames") -> None:
        self._total = total
        self._unit = unit
        self._seen = 0
        self._worked = 0
        self._start = self._last = time.monotonic()
        console = Console(stderr=True)
        self._bar = None
        if console.is_terminal:
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("", total=total, rate="")

    def advance(self, worked: bool = True) -> None:
        """Count one more item; with worked=False it took no time, so it moves the position but not the rate."""
        self._seen += 1
        self._worked += worked
        now = time.monotonic()
        rate = self._worked / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, rate=f"{rate:.2f} {self._unit}/s")
        elif now - self._last >= EVERY_S:
            self._last = now
            of = "" if self._total is None else f" of {self._total}"
            left = f", {(self._total - self._seen) / rate:.0f} s left" if self._total and rate > 0 else ""
            say(f"{self._seen}{of} {self._unit}, {rate:.2f}/s{left}", err=True)

    def report(self, line: str) -> None:
        """Print a line on stderr."""
        if self._bar is not None:
            self._bar.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
        else:
            say(line, err=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def tell_notes(source: Source, progress: FrameProgress) -> None:
    """Report what a source has to say of itself, such as files that it passed over."""
    for note in source.notes[:NOTES]:
        progress.report(note)
    if len(source.notes) > NOTES:
        progress.report(f"and {len(source.notes) - NOTES} more such notes")


class PhaseProgress:
    """Progress over the phases of a long job, each with its own count of steps."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        console = Console(stderr=True)
        self._bar = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("", total=None)

    def tell(self, phase: str, done: int, total: int) -> None:
        """Show how many steps of a phase are done."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, description=phase, completed=done, total=total)
        elif now - self._last >= EVERY_S:
            self._last = now
            say(f"{phase}: {done} of {total}", err=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
