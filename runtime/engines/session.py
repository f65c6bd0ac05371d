"""A session is a loaded runnable model: `inputs`, `outputs`, `run(feeds)`, `close()`."""

import os
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence, Set
from types import TracebackType
from typing import Any, Protocol, Self, overload

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.engines.device_tensor import DeviceTensor, Place, Tensor
from maskrt.runtime.errors import BundleError, NetworkError, NotFinite, OutOfMemory
from maskrt.runtime.forks import require_threads

Array = NDArray[Any]
Ports = dict[str, tuple[str, tuple[int | None, ...]]]

# How engines say that they lack memory: ONNX Runtime's arena, C++, CUDA, cuDNN and cuBLAS, TensorRT.
NO_MEMORY = ("failed to allocate memory", "bad_alloc", "out of memory", "alloc_failed", "outofmemory")


class Session(Protocol):
    """The interface that a pipeline needs of an engine.

    `inputs` and `outputs` map a name to (element type, shape), with None for a dynamic axis; `optional` are
    inputs that need not be fed.
    """

    inputs: Ports
    optional: Ports
    outputs: Ports

    @overload
    def run(self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None) -> dict[str, Array]: ...

    @overload
    def run(
        self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None, *, keep_on_device: Collection[str]
    ) -> dict[str, Any]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BaseSession(Closeable):
    """The base of all engines: names, the place of their device tensors, and the search for NaN.

    place: where it leaves the outputs that are kept; None: on the host. optional: inputs that have a default, and are
    fed only where they differ from it.
    """

    place: Place | None = None

    def __init__(self, name: str, inputs: Ports, outputs: Ports, optional: Ports | None = None) -> None:
        require_threads()
        self._name, self._closed, self._process = name, False, os.getpid()
        self.inputs = inputs
        self.optional = optional or {}
        self.outputs = outputs

    @overload
    def run(self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None) -> dict[str, Array]: ...

    @overload
    def run(
        self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None, *, keep_on_device: Collection[str]
    ) -> dict[str, Any]: ...

    def run(
        self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None, *, keep_on_device: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run the model once.

        Args:
            feeds: arrays, and device tensors of this engine and device.
            check: outputs that are searched for NaN and infinity; all where None. What stays on a device is not
                searched; what is made from it and comes to the host is.
            keep_on_device: outputs that stay where the engine computes them: device tensors on a GPU, arrays on a CPU.

        Raises:
            MaskrtError: this process was forked from the one that loaded the model.
            NetworkError: the engine failed, a feed lies on another device, or the session is closed.
            NotFinite: a floating-point output holds NaN or infinity.
            OutOfMemory: it failed for lack of memory.
        """
        require_threads(self._process)
        if self._closed:
            raise NetworkError(f"{self._name}: the session is closed: use it inside its `with` block, or open it again")
        try:
            self._check(feeds, keep_on_device)
            values = self._infer(feeds, keep_on_device)
        except NetworkError:
            raise
        except Exception as error:  # the engines have no common base class for their errors
            if lacks_memory(error):
                raise out_of_memory(self._name, error) from error
            raise NetworkError(f"{self._name} failed: {first_line(error)}") from error
        outputs = dict(zip(self.outputs, values, strict=True))
        for name, value in outputs.items():
            if isinstance(value, DeviceTensor) or (check is not None and name not in check):
                continue
            # The sum is finite only if every element is; it costs one pass and no temporary.
            if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value.sum(dtype=np.float64)):
                raise NotFinite(f"{self._name} returned NaN or infinity in {name}: check the input and the export")
        return outputs

    def close(self) -> None:
        """Refuse further runs; an engine also frees its memory."""
        self._closed = True

    def _check(self, feeds: Mapping[str, Tensor], keep_on_device: Collection[str]) -> None:
        """Raise ValueError unless names and places fit.

        Some engines would go on with whatever an input held before, or with another device's address.
        """
        if unknown := set(keep_on_device) - set(self.outputs):
            raise ValueError(f"no output {', '.join(sorted(unknown))} to keep: it returns {', '.join(self.outputs)}")
        if set(feeds) - set(self.optional) != set(self.inputs):
            raise ValueError(f"it takes {', '.join(self.inputs)}, and was fed {', '.join(feeds) or 'nothing'}")
        for name, value in feeds.items():
            if isinstance(value, DeviceTensor) and value.place != self.place:
                raise ValueError(
                    f"{name} lies on {value.place}, this session computes on {self.place or 'the CPU'}: "
                    "open both on one provider and device, or feed what numpy() returns"
                )

    @abstractmethod
    def _infer(self, feeds: Mapping[str, Tensor], keep_on_device: Collection[str]) -> Sequence[Tensor]:
        """Return the outputs in their order. The feeds have the inputs' names; device tensors are of its place."""


def lacks_memory(error: Exception) -> bool:
    """Return whether an engine failed for lack of memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in NO_MEMORY)


def out_of_memory(name: str, error: Exception) -> OutOfMemory:
    """Return the error that says so, and what helps. name: the model's file."""
    return OutOfMemory(
        f"{name} ran out of memory ({first_line(error)}): end other programs that hold it, set a smaller "
        "--batch, points_per_batch or tile, or, on a GPU, use --provider cpu"
    )


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type's name."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def require_names(session: Session, role: str, inputs: Set[str], outputs: Set[str]) -> None:
    """Raise BundleError unless a graph has these inputs and outputs."""
    if not inputs <= set(session.inputs) or not outputs <= set(session.outputs):
        raise BundleError(
            f"the {role} takes {', '.join(session.inputs)} and returns {', '.join(session.outputs)}; expected "
            f"{', '.join(sorted(inputs))} and {', '.join(sorted(outputs))}: export the bundle again"
        )
