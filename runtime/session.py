"""A session is a loaded runnable model: `inputs`, `outputs`, `run(feeds)`, `close()`."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import BundleError, NetworkError, ProviderUnavailable

Array = NDArray[Any]
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Session(Protocol):
    """What a pipeline needs of an engine; one class per engine implements it."""

    inputs: dict[str, tuple[str, tuple[int | None, ...]]]
    outputs: dict[str, tuple[str, tuple[int | None, ...]]]

    def run(self, feeds: Mapping[str, Array], check: Collection[str] | None = None) -> dict[str, Array]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class OnnxRuntimeSession:
    """An ONNX file in ONNX Runtime on one provider.

    `inputs` and `outputs` map a name to (element type, shape), with None for a dynamic axis.
    """

    def __init__(self, path: Path, provider: str = "cpu", threads: int | None = None) -> None:
        import onnxruntime  # imported here so that the package imports where no engine is installed

        if provider not in PROVIDERS:
            raise ProviderUnavailable(f"unknown provider {provider!r}; maskrt knows: {', '.join(PROVIDERS)}")
        available = onnxruntime.get_available_providers()
        if PROVIDERS[provider] not in available:
            raise ProviderUnavailable(
                f"{provider} requested, ONNX Runtime here offers {', '.join(available)}: "
                "install maskrt[gpu] in place of maskrt[cpu], or use --provider cpu"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors reach the caller as exceptions; warnings are for exporters
        # Threads that spin while they wait take the cores from whatever runs between two networks.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = onnxruntime.InferenceSession(path, options, providers=[PROVIDERS[provider]])
        except Exception as error:  # onnxruntime has no common base class for its errors
            raise BundleError(f"{path.name} cannot be loaded by ONNX Runtime: {_first_line(error)}") from error
        if PROVIDERS[provider] not in self._session.get_providers():
            # ONNX Runtime drops a provider whose libraries do not load and only logs it.
            raise ProviderUnavailable(f"{provider} requested, but its libraries do not load: run maskrt doctor")
        self._name = path.name
        self.inputs = {node.name: (node.type, _shape(node.shape)) for node in self._session.get_inputs()}
        self.outputs = {node.name: (node.type, _shape(node.shape)) for node in self._session.get_outputs()}

    def run(self, feeds: Mapping[str, Array], check: Collection[str] | None = None) -> dict[str, Array]:
        """Run the model once.

        Args:
            check: outputs that are searched for NaN and infinity; all where None.

        Raises:
            NetworkError: the engine failed, or a floating-point output holds NaN or infinity.
        """
        try:
            values = self._session.run(None, dict(feeds))
        except Exception as error:
            raise NetworkError(f"{self._name} failed: {_first_line(error)}") from error
        outputs = dict(zip(self.outputs, values, strict=True))
        for name, value in outputs.items():
            if check is not None and name not in check:
                continue
            # The sum is finite only if every element is; it costs one pass and no temporary.
            if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value.sum(dtype=np.float64)):
                raise NetworkError(f"{self._name} returned NaN or infinity in {name}: check the input and the export")
        return outputs

    def close(self) -> None:
        """Free the model's memory."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_session(path: Path, provider: str = "cpu", threads: int | None = None) -> Session:
    """Load an ONNX file on the provider asked for.

    Raises:
        ProviderUnavailable: the provider is not on this machine; there is no fallback.
        BundleError: the file is not a model that the engine can load.
    """
    return OnnxRuntimeSession(path, provider, threads)


def usable_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shape(shape: list[Any]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
