"""Measure contestants in alternating pairs: each has a process of its own, and only one works at a time.

A ratio is made of two times measured right after each other, so that a machine that slows down for a while slows both.
Every contestant builds its models once, in its own process: its peak memory is then its own, with its models.
"""

import multiprocessing
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from maskrt.runtime.errors import MaskrtError

# One iteration returns stage -> milliseconds, empty where there are no stages, and a value; run_pairs keeps the last.
Iterate = Callable[[], tuple[dict[str, float], Any]]
Factory = Callable[[], Iterate]  # picklable; called in the worker
SETTLE_S = 0.2  # OpenMP threads spin for a while after their work; the next contestant should not share cores with them
STOP_S = 10.0


class WorkerError(MaskrtError):
    """A contestant failed or died. Its traceback, where there is one, is a note of the exception."""


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One contestant. p95_s and p99_s are measured times.

    peak_rss_mb: 10^6 bytes, of its worker, or of all its workers together; loaded_rss_mb: their peak before the first
    iteration. Only refiners have iou and mba, of their masks against the truth, 0 to 1, and decoded_fraction, the share
    of the cascade stages' pixels that is decoded. Only latency has p99_s. Only throughput has frames_per_s, by the
    median. Only two-stage has dice and gflops of a frame.
    """

    name: str
    median_s: float
    p95_s: float
    runs: int
    peak_rss_mb: float
    stages_ms: dict[str, float] = {}
    loaded_rss_mb: float = 0.0
    iou: float | None = None
    mba: float | None = None
    decoded_fraction: float | None = None
    p99_s: float | None = None
    frames_per_s: float | None = None
    dice: float | None = None
    gflops: float | None = None


class Spread(msgspec.Struct, frozen=True):
    """Median and range of the ratios of all pairs. A ratio is the other's time / ours."""

    median: float
    min: float
    max: float


@dataclass(frozen=True)
class Measured:
    """The result of run_pairs.

    rows: in the order of the contestants; ratios: by the others' names; values: the last that each returned; seconds:
    of every pair, by name.
    """

    rows: tuple[Row, ...]
    ratios: dict[str, Spread]
    values: dict[str, Any]
    seconds: dict[str, np.ndarray] = field(default_factory=dict)

    def ratio(self, slower: str, faster: str) -> Spread:
        """Divide the slower one's time by the faster one's, pair by pair."""
        return spread_of(self.seconds[slower] / self.seconds[faster])


@dataclass(frozen=True)
class _Reply:
    seconds: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: float = 0.0
    value: Any = None
    error: str = ""
    trace: str = ""


def run_pairs(
    contestants: Mapping[str, Factory | Sequence[Factory]],
    pairs: int,
    warmup: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Measure contestants in turns. The first is ours; every other one is compared with it.

    The order within a pair is reversed from pair to pair, so that neither side always runs on the warmer machine.

    Args:
        contestants: name -> factory. A factory is called once in its own process and returns a function that runs one
            iteration. Several factories are one contestant whose processes work at the same time: its time is that of
            the slowest, its memory is the sum, and its value is the list of their values.
        pairs: measured iterations of each contestant.
        warmup: iterations before, not counted: kernels compile, caches fill.
        progress: called with a line per step.

    Raises:
        WorkerError: a contestant raised or died. All workers are ended, whatever happens.
        ValueError: there are no contestants or no pairs.
    """
    if not contestants or pairs < 1 or warmup < 0:
        raise ValueError(f"{len(contestants)} contestants, {pairs} pairs, {warmup} warm-ups: at least 1, 1 and 0")
    names = list(contestants)
    with ExitStack() as stack:
        workers: dict[str, _Team] = {}
        for name, factories in contestants.items():
            workers[name] = _Team(name, factories, stack)
            progress(f"{name}: ready")
        for _ in range(warmup):
            for name in names:
                progress(f"{name}: warm-up {workers[name].run().seconds:.2f} s")
        replies: dict[str, list[_Reply]] = {name: [] for name in names}
        for pair in range(pairs):
            for name in names if pair % 2 == 0 else names[::-1]:
                replies[name].append(workers[name].run())
            times = ", ".join(f"{name} {replies[name][-1].seconds:.2f} s" for name in names)
            progress(f"pair {pair + 1} of {pairs}: {times}")
        last = {name: workers[name].value() for name in names}
    seconds = {name: np.array([reply.seconds for reply in replies[name]]) for name in names}
    return Measured(
        rows=tuple(_row(name, replies[name], last[name].peak_rss_mb, workers[name].loaded_rss_mb) for name in names),
        ratios={name: spread_of(seconds[name] / seconds[names[0]]) for name in names[1:]},
        values={name: last[name].value for name in names},
        seconds=seconds,
    )


class _Team:
    """One worker, or several that work at the same time."""

    def __init__(self, name: str, factories: Factory | Sequence[Factory], stack: ExitStack) -> None:
        """Start the workers; they end with the stack."""
        self._alone = callable(factories)
        each = [factories] if callable(factories) else factories
        self._workers = [stack.enter_context(_Worker(name, factory)) for factory in each]
        self.loaded_rss_mb = sum(worker.loaded_rss_mb for worker in self._workers)

    def run(self) -> _Reply:
        """Run one iteration. The stages are the first worker's."""
        time.sleep(SETTLE_S)
        replies = self._ask("run")
        return _Reply(max(reply.seconds for reply in replies), replies[0].stages_ms)

    def value(self) -> _Reply:
        """Return the value of the last iteration, and the memory."""
        replies = self._ask("value")
        values = [reply.value for reply in replies]
        return _Reply(
            peak_rss_mb=sum(reply.peak_rss_mb for reply in replies), value=values[0] if self._alone else values
        )

    def _ask(self, command: str) -> list[_Reply]:
        for worker in self._workers:
            worker.send(command)
        return [worker.reply() for worker in self._workers]


class _Worker:
    """A spawned process that answers "run" and "value", and ends with the block."""

    def __init__(self, name: str, factory: Factory) -> None:
        self._name = name
        self.loaded_rss_mb = 0.0
        # Spawned, not forked: nothing that this process has imported or allocated is in the worker.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, factory), name=name, daemon=True)
        with theirs:  # closed here once the worker has its copy, so that its death ends our recv
            self._process.start()

    def send(self, command: str) -> None:
        """Send a command; `reply` must follow."""
        try:
            self._connection.send(command)
        except OSError as error:
            raise self._died() from error

    def reply(self) -> _Reply:
        """Wait for the answer."""
        try:
            reply: _Reply = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if reply.error:
            failure = WorkerError(f"{self._name} failed: {reply.error}")
            failure.add_note(reply.trace)
            raise failure
        return reply

    def _died(self) -> WorkerError:
        self._process.join(STOP_S)
        code = self._process.exitcode
        hint = ": killed, perhaps for lack of memory" if code == -signal.SIGKILL else ""
        return WorkerError(f"{self._name} died with exit code {code}{hint}")

    def __enter__(self) -> Self:
        try:
            self.loaded_rss_mb = self.reply().peak_rss_mb  # sent once the factory is done
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(at_once=error is not None)

    def _end(self, at_once: bool) -> None:
        self._connection.close()  # ends the worker's recv, but not an iteration that is under way
        if not at_once:
            self._process.join(STOP_S)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()


def _serve(connection: Connection, factory: Factory) -> None:
    """Run the worker's loop: build, then answer until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    value: Any = None
    try:
        iterate = factory()
        connection.send(_Reply(peak_rss_mb=peak_rss_mb()))
        while True:
            command = connection.recv()
            if command == "value":
                connection.send(_Reply(peak_rss_mb=peak_rss_mb(), value=value))
                continue
            start = time.perf_counter()
            stages_ms, value = iterate()
            connection.send(_Reply(time.perf_counter() - start, stages_ms))
    except (EOFError, BrokenPipeError):
        return
    except BaseException as error:  # SystemExit too: whatever ends the worker is reported
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        connection.send(_Reply(error=reason, trace=traceback.format_exc()))


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process so far, in MB (10^6 bytes)."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss on Linux: it survives exec, so a spawned worker would start at its parent's peak.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _row(name: str, replies: list[_Reply], peak: float, loaded: float) -> Row:
    seconds = [reply.seconds for reply in replies]
    stages = {
        stage: round(float(np.median([reply.stages_ms[stage] for reply in replies])), 3)
        for stage in replies[0].stages_ms
    }
    # "higher": with few runs an interpolated p95 would be a time that nobody measured.
    p95 = float(np.quantile(seconds, 0.95, method="higher"))
    return Row(name, float(np.median(seconds)), p95, len(seconds), round(peak, 1), stages, round(loaded, 1))


def spread_of(ratios: np.ndarray) -> Spread:
    """Return median and range of ratios, float64 [N]."""
    return Spread(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))
