"""Streams of the stand-in's GPU, and graphs captured from them: what is queued, and what must not meet."""

import enum
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class cudaError_t(enum.IntEnum):  # noqa: N801, RUF100
    """The statuses that the stand-in returns, with CUDA's numbers."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaStreamCaptureMode(enum.IntEnum):  # noqa: N801, RUF100
    """Whose other calls a capture minds."""

    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


OK, BAD = cudaError_t.cudaSuccess, cudaError_t.cudaErrorInvalidValue


class Handle:
    """The handle of a stream or a graph; int() is its address."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __int__(self) -> int:
        return self._address

    def __index__(self) -> int:
        return self._address


@dataclass(frozen=True, eq=False)
class Work:
    """Work that a stream will do, and the blocks of memory that it uses.

    queued: is called when it goes to a stream, not when it goes to a graph.
    """

    run: Callable[[], None]
    reads: frozenset[int]
    writes: frozenset[int]
    queued: Callable[[], None] = lambda: None

    def meets(self, other: "Work") -> bool:
        """Whether their order matters."""
        return bool(self.writes & (other.reads | other.writes) or self.reads & other.writes)


class Streams:
    """Streams and graphs. Work is done when its stream is waited for, and what is captured not even then."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.streams: dict[int, list[Work]] = {}
        self.graphs: dict[int, tuple[Work, ...]] = {}
        self.executables: dict[int, tuple[Work, ...]] = {}
        self.captures: dict[int, tuple[int, list[Work]]] = {}  # stream -> thread, and what it has captured
        self.launches = self.captured = 0
        self.refuse_capture = ""  # where a capture fails: "execute", "end" or "instantiate"
        self._addresses = itertools.count(0x7F00_0000_0000, 1 << 32)

    def problem(self, text: str) -> None:
        """Note what a real GPU would not forgive."""
        self.problems.append(text)

    def later(self, stream: int, work: Work) -> None:
        """Append work to a stream, or to the graph that is captured from it."""
        if stream in self.captures:
            self.captures[stream][1].append(work)
            return
        work.queued()
        self.streams[stream].append(work)

    def forbid_in_capture(self, name: str) -> None:
        """Note a call that spoils a capture of the calling thread."""
        if any(thread == threading.get_ident() for thread, _ in self.captures.values()):
            self.problem(f"{name} while this thread captures a stream")

    def _cudaStreamSynchronize(self, stream: Any) -> Any:
        if int(stream) not in self.streams:
            self.problem("waited for a stream that there is not")
            return cudaError_t.cudaErrorInvalidResourceHandle
        work, self.streams[int(stream)] = self.streams[int(stream)], []
        others = [other for queued in self.streams.values() for other in queued]
        for each in work:
            if any(each.meets(other) for other in others):
                self.problem("two streams use the same memory, and neither was waited for")
            each.run()
        return OK

    def _cudaStreamDestroy(self, stream: Any) -> Any:
        work = self.streams.pop(int(stream), None)
        if work is None or work:
            self.problem("a stream destroyed twice, or with work that is not done")
        return OK if work is not None else cudaError_t.cudaErrorInvalidResourceHandle

    def _cudaStreamBeginCapture(self, stream: Any, mode: cudaStreamCaptureMode) -> Any:
        if int(stream) not in self.streams or int(stream) in self.captures:
            self.problem("a capture of no stream, or within a capture")
            return BAD
        if mode != cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal:
            self.problem(f"a capture of mode {mode!r} minds what other threads do, or does not mind its own")
        self.captures[int(stream)] = threading.get_ident(), []
        return OK

    def _cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        thread, work = self.captures.pop(int(stream), (None, []))
        if thread != threading.get_ident():
            self.problem("the end of a capture that this thread did not begin")
            return BAD, None
        if self.refuse_capture in ("execute", "end"):
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        graph = Handle(next(self._addresses))
        self.graphs[int(graph)] = tuple(work)
        self.captured += 1
        return OK, graph

    def _cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        if int(graph) not in self.graphs or flags:
            self.problem("no graph, or flags that maskrt has no use for")
            return BAD, None
        if self.refuse_capture == "instantiate":
            return cudaError_t.cudaErrorMemoryAllocation, None
        executable = Handle(next(self._addresses))
        self.executables[int(executable)] = self.graphs[int(graph)]
        return OK, executable

    def _cudaGraphLaunch(self, executable: Any, stream: Any) -> Any:
        if int(executable) not in self.executables or int(stream) not in self.streams:
            self.problem("a launch of no graph, or on no stream")
            return BAD
        self.launches += 1
        for work in self.executables[int(executable)]:
            self.later(int(stream), work)
        return OK

    def _cudaGraphDestroy(self, graph: Any) -> Any:
        return self._gone(self.graphs, graph)

    def _cudaGraphExecDestroy(self, executable: Any) -> Any:
        return self._gone(self.executables, executable)

    def _gone(self, graphs: dict[int, Any], graph: Any) -> Any:
        if graphs.pop(int(graph), None) is None:
            self.problem("a graph destroyed twice")
            return BAD
        return OK
