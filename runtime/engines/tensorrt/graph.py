"""The work of an execution context as one CUDA graph: one launch in place of one for every kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.engines.tensorrt.memory import Cuda, Stream
from maskrt.runtime.errors import NetworkError


@dataclass
class CaptureFailure:
    """The reason why a network cannot be captured, for all execution contexts of its session; empty if unknown."""

    reason: str = ""


class CudaGraphRunner(Closeable):
    """The runner of an execution context's work, as a graph from the second time with the same shapes and addresses.

    The first run with new shapes is an ordinary one, since TensorRT prepares for them in it; the second is captured.
    A graph holds what it was captured with, so any change drops it.

    Source: NVIDIA TensorRT documentation, "CUDA Graphs" under Performance Best Practices.
    """

    def __init__(self, cuda: Cuda, stream: Stream, failure: CaptureFailure) -> None:
        self._cuda, self._stream, self._failure = cuda, stream, failure
        self._key: Any = None
        self._executable: Any = None

    def enqueue(self, key: Any, work: Callable[[], None]) -> None:
        """Give work to the stream. key: everything that it depends on, comparable."""
        if key != self._key:
            self.close()
            work()
            self._key = key
            return
        if self._executable is None and not self._failure.reason:
            self._capture(work)
        if self._executable is None:
            work()
        else:
            self._stream.launch(self._executable)

    def _capture(self, work: Callable[[], None]) -> None:
        try:
            graph = self._stream.capture(work)
            try:
                self._executable = self._cuda.call("cudaGraphInstantiate", graph, 0)
            finally:
                self._cuda.call("cudaGraphDestroy", graph)
        except NetworkError as error:  # a layer that CUDA does not capture; the engine runs without
            self._failure.reason = str(error)

    def close(self) -> None:
        """Drop the graph. Its last launch must be done."""
        executable, self._executable, self._key = self._executable, None, None
        if executable is not None:
            self._cuda.call("cudaGraphExecDestroy", executable)
