"""A session is a loaded runnable model: `inputs`, `outputs`, `run(feeds)`, `close()`."""

from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, overload

from maskrt.runtime.engines.device_tensor import Tensor
from maskrt.runtime.engines.onnxruntime import OPENVINO, Array, OnnxRuntimeSession, OpenVinoSession, Ports
from maskrt.runtime.engines.providers import ONNXRUNTIME, TENSORRT, split_device
from maskrt.runtime.engines.tensorrt.session import TensorRtSession
from maskrt.runtime.errors import ProviderUnavailable

PROVIDERS = (*ONNXRUNTIME, *OPENVINO, TENSORRT)


class Session(Protocol):
    """What a pipeline needs of an engine.

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
        self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None, *, keep: Collection[str]
    ) -> dict[str, Any]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_session(
    path: Path, provider: str = "cpu", threads: int | None = None, callers: int = 1, repeated: bool = False
) -> Session:
    """Load an ONNX file on the provider asked for.

    Args:
        provider: one of PROVIDERS; "cuda:1" is the second GPU.
        threads: of one run, on a CPU; the engine's own choice where None.
        callers: threads that will call `run` at the same time.
        repeated: it runs many times per frame, so its memory is better kept between runs.

    Raises:
        ProviderUnavailable: the provider is not on this machine; there is no fallback.
        BundleError: the file is not a model that the engine can load; for tensorrt, maskrt build has not been run.
        OutOfMemory: it does not fit into memory.
    """
    name, device = split_device(provider)
    if name in ONNXRUNTIME:
        return OnnxRuntimeSession(path, name, threads, repeated, device)  # any number of callers
    if name in OPENVINO:
        return OpenVinoSession(path, name, threads, callers)
    if name == TENSORRT:
        return TensorRtSession(path, callers, device)
    raise ProviderUnavailable(f"unknown provider {provider!r}; maskrt knows: {', '.join(PROVIDERS)}")
