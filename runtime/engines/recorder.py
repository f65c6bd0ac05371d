"""Records of what a pipeline's networks are fed with and what they answer, to make or check another precision."""

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.engines.device_tensor import DeviceTensor, Tensor
from maskrt.runtime.engines.session import Array, Session
from maskrt.runtime.errors import NetworkError


@dataclass(frozen=True)
class Run:
    """One run of a session: name -> array, how long it took, in seconds, and its error, where there are no outputs."""

    feeds: dict[str, Array]
    outputs: dict[str, Array]
    seconds: float = 0.0
    error: str | None = None


class Recorder:
    """A sample of every wrapped session's runs, each as likely to be kept as any other.

    Some networks run hundreds of times a frame: memory holds `size` runs of each.
    """

    def __init__(self, size: int = 16, seed: int = 0) -> None:
        self.runs: dict[str, list[Run]] = defaultdict(list)
        self._size = size
        self._seen: dict[str, int] = defaultdict(int)
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()

    def wrap_session(self, role: str, session: Session) -> Session:
        """Return a session that is recorded under its role."""
        return recorded_session(role, session, self)

    def add(self, role: str, run: Run) -> None:
        """Add a run by reservoir sampling: the n-th run takes a kept one's place with probability size / n."""
        if run.error is not None:  # it has no outputs to compare with
            return
        with self._lock:
            self._seen[role] += 1
            if len(self.runs[role]) < self._size:
                self.runs[role].append(run)
            elif (place := int(self._random.integers(self._seen[role]))) < self._size:
                self.runs[role][place] = run


class RunSink(Protocol):
    """A place for every run of the sessions that are recorded into it."""

    def add(self, role: str, run: Run) -> None: ...


def recorded_session(role: str, session: Session, sink: RunSink) -> Session:
    """Return a session that gives each of its runs to a sink."""
    return _RecordedSession(role, session, sink)


class _RecordedSession(Closeable):
    """A session whose runs are recorded."""

    def __init__(self, role: str, session: Session, sink: RunSink) -> None:
        self.inputs, self.optional, self.outputs = session.inputs, session.optional, session.outputs
        self._role, self._session, self._sink = role, session, sink

    @overload
    def run(self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None) -> dict[str, Array]: ...

    @overload
    def run(
        self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None, *, keep_on_device: Collection[str]
    ) -> dict[str, Any]: ...

    def run(
        self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None, *, keep_on_device: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run the session, and record the run, also where it fails; see Session.

        What stays on a device is copied for the record, since its memory is soon used again.
        """
        start = time.perf_counter()
        try:
            outputs = self._session.run(feeds, check, keep_on_device=keep_on_device)
        except NetworkError as error:
            self._sink.add(self._role, Run(_on_host(feeds), {}, time.perf_counter() - start, str(error)))
            raise
        seconds = time.perf_counter() - start
        self._sink.add(self._role, Run(_on_host(feeds), _on_host(outputs), seconds))
        return outputs

    def close(self) -> None:
        """Free the session."""
        self._session.close()


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: value.numpy() if isinstance(value, DeviceTensor) else value for name, value in tensors.items()}
