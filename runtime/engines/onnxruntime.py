"""The engines behind a session: ONNX Runtime, and OpenVINO for CPUs."""

import sys
import threading
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.closeable import Closing
from maskrt.runtime.engines.binding import Binding
from maskrt.runtime.engines.device_tensor import Place, Resident, Tensor
from maskrt.runtime.engines.providers import DEVICE_MEMORY, require_loaded, require_offered, with_options
from maskrt.runtime.errors import BundleError, NetworkError, NotFinite, OutOfMemory, ProviderUnavailable

Array = NDArray[Any]
Ports = dict[str, tuple[str, tuple[int | None, ...]]]

OPENVINO = {"openvino": "f32", "openvino-bf16": "bf16"}
# What engines say when they lack memory: ONNX Runtime's arena, C++, CUDA, cuDNN and cuBLAS, TensorRT.
NO_MEMORY = ("failed to allocate memory", "bad_alloc", "out of memory", "alloc_failed", "outofmemory")
NO_DEVICE = ("cuda failure", "cudnn failure", "cublas failure")
_ELEMENT_TYPES = {"f32": "float", "u8": "uint8", "i64": "int64", "i32": "int32", "boolean": "bool"}


class Engine(Closing):
    """What the engines share: names, where they take residents from, and the search for NaN.

    place: where it leaves the outputs that are kept; None: on the host. optional: inputs that have a default, and are
    fed only where they differ from it.
    """

    place: Place | None = None

    def __init__(self, name: str, inputs: Ports, outputs: Ports, optional: Ports | None = None) -> None:
        self._name = name
        self.inputs = inputs
        self.optional = optional or {}
        self.outputs = outputs

    @overload
    def run(self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None) -> dict[str, Array]: ...

    @overload
    def run(
        self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None, *, keep: Collection[str]
    ) -> dict[str, Any]: ...

    def run(
        self, feeds: Mapping[str, Tensor], check: Collection[str] | None = None, *, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run the model once.

        Args:
            feeds: arrays, and residents of this engine and device.
            check: outputs that are searched for NaN and infinity; all where None. What stays on a device is not
                searched: what is made from it and comes to the host is.
            keep: outputs that stay where the engine computes them: residents on a GPU, arrays as ever on a CPU.

        Raises:
            NetworkError: the engine failed, or a feed lies on another device.
            NotFinite: a floating-point output holds NaN or infinity.
            OutOfMemory: it failed for lack of memory.
        """
        try:
            self._check(feeds, keep)
            values = self._infer(feeds, keep)
        except NetworkError:
            raise
        except Exception as error:  # the engines have no common base class for their errors
            if _lacks_memory(error):
                raise _out_of_memory(self._name, error) from error
            raise NetworkError(f"{self._name} failed: {_first_line(error)}") from error
        outputs = dict(zip(self.outputs, values, strict=True))
        for name, value in outputs.items():
            if isinstance(value, Resident) or (check is not None and name not in check):
                continue
            # The sum is finite only if every element is; it costs one pass and no temporary.
            if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value.sum(dtype=np.float64)):
                raise NotFinite(f"{self._name} returned NaN or infinity in {name}: check the input and the export")
        return outputs

    def _check(self, feeds: Mapping[str, Tensor], keep: Collection[str]) -> None:
        """Some engines would go on with whatever an input held before, or with another device's address."""
        if unknown := set(keep) - set(self.outputs):
            raise ValueError(f"it returns {', '.join(self.outputs)}, and no {', '.join(sorted(unknown))} to keep")
        if set(feeds) - set(self.optional) != set(self.inputs):
            raise ValueError(f"it takes {', '.join(self.inputs)}, not {', '.join(feeds)}")
        for name, value in feeds.items():
            if isinstance(value, Resident) and value.place != self.place:
                raise ValueError(
                    f"{name} lies on {value.place}, this session computes on {self.place or 'the CPU'}: "
                    "open both on one provider and device, or feed what numpy() returns"
                )

    @abstractmethod
    def _infer(self, feeds: Mapping[str, Tensor], keep: Collection[str]) -> Sequence[Tensor]:
        """The values of the outputs, in their order. The feeds are those of the inputs, residents from its place."""


class OnnxRuntimeSession(Engine):
    """An ONNX file in ONNX Runtime on one provider, and one GPU where it is of that kind."""

    def __init__(
        self, path: Path, provider: str = "cpu", threads: int | None = None, repeated: bool = False, device: int = 0
    ) -> None:
        import onnxruntime  # imported here so that the package imports where no engine is installed

        require_offered(provider, onnxruntime)
        providers = with_options(provider, device, path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors reach the caller as exceptions; warnings are for exporters
        # Threads that spin while they wait take the cores from whatever runs between two networks.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Memory planned for a shape is one block, on top of what earlier shapes have left; without a plan a run takes
        # what it can reuse. The first run of CRM's backbone takes half as long as without an arena, its peak is 0.6.
        options.enable_mem_pattern = False
        self._run_options = onnxruntime.RunOptions()
        if not repeated:  # hand memory back after the run; the decoder, which runs hundreds of times, takes longer then
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            # Without the last, ONNX Runtime goes on by itself with other providers when one fails, now or in a run.
            self._session: Any = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=False)
        except Exception as error:  # onnxruntime has no common base class for its errors
            if _lacks_memory(error):
                raise _out_of_memory(path.name, error) from error
            if any(sign in str(error).lower() for sign in NO_DEVICE):
                raise ProviderUnavailable(
                    f"{provider} requested, its device {device} does not work: {_first_line(error)}: run maskrt doctor"
                ) from error
            raise BundleError(f"{path.name} cannot be loaded by ONNX Runtime: {_first_line(error)}") from error
        require_loaded(provider, self._session)
        self._binding: Binding | None = None
        if provider in DEVICE_MEMORY:
            self._binding = Binding(self._session, self._run_options, DEVICE_MEMORY[provider], device)
            self.place = self._binding.place
        inputs, outputs = _ports(self._session.get_inputs()), _ports(self._session.get_outputs())
        super().__init__(path.name, inputs, outputs, _ports(self._session.get_overridable_initializers()))

    def _infer(self, feeds: Mapping[str, Tensor], keep: Collection[str]) -> Sequence[Tensor]:
        if self._binding is not None:
            return self._binding.run(feeds, self.outputs, keep)
        values: list[Array] = self._session.run(None, dict(feeds), self._run_options)
        return values

    def close(self) -> None:
        """Free the model's memory. Residents that are left keep theirs, and with it the session's arena."""
        self._session = self._binding = None


class OpenVinoSession(Engine):
    """An ONNX file in OpenVINO on the CPU, in the precision that the provider's name says."""

    def __init__(self, path: Path, provider: str = "openvino", threads: int | None = None, callers: int = 1) -> None:
        # OpenVINO's converter, which its package imports, reports its use to its makers; without this module it cannot.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        try:
            import openvino
        except ImportError as error:
            raise ProviderUnavailable(f"{provider} requested: install maskrt[openvino]") from error
        precision = OPENVINO[provider]
        # Without the hint OpenVINO chooses bfloat16 by itself where the CPU has it.
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": callers}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads * callers
        core = openvino.Core()
        if precision.upper() not in (*core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), "F32"):
            raise ProviderUnavailable(f"{provider} requested, this CPU has no {precision}: use --provider openvino")
        try:
            self._compiled: Any = core.compile_model(path, "CPU", config)
        except RuntimeError as error:
            raise BundleError(f"{path.name} cannot be loaded by OpenVINO: {_first_line(error)}") from error
        compiled = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if compiled != precision:
            raise ProviderUnavailable(
                f"{provider} requested, OpenVINO took {compiled} for {path.name}: use --provider cpu"
            )
        # A request belongs to one thread at a time.
        self._requests = threading.local()
        super().__init__(path.name, _openvino_ports(self._compiled.inputs), _openvino_ports(self._compiled.outputs))

    def _infer(self, feeds: Mapping[str, Tensor], keep: Collection[str]) -> Sequence[Tensor]:
        if not hasattr(self._requests, "request"):
            self._requests.request = self._compiled.create_infer_request()
        request = self._requests.request
        request.infer(dict(feeds))
        # Copied: the tensors belong to the request, which its next run overwrites.
        return [np.array(request.get_output_tensor(index).data) for index in range(len(self.outputs))]

    def close(self) -> None:
        """Free the model's memory."""
        self._compiled, self._requests = None, threading.local()


def _ports(nodes: Any) -> Ports:
    return {
        node.name: (node.type, tuple(size if isinstance(size, int) else None for size in node.shape)) for node in nodes
    }


def _openvino_ports(ports: Any) -> Ports:
    """In ONNX Runtime's words, so that a session looks the same whatever runs it."""
    return {
        # Not get_any_name: where an operator in between was removed, a port has the names of both its ends.
        port.get_node().get_friendly_name().removesuffix("/sink_port_0"): (
            f"tensor({_ELEMENT_TYPES.get(name := port.get_element_type().get_type_name(), name)})",
            tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape()),
        )
        for port in ports
    }


def _lacks_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in NO_MEMORY)


def _out_of_memory(name: str, error: Exception) -> OutOfMemory:
    return OutOfMemory(
        f"{name} ran out of memory ({_first_line(error)}): end other programs that hold it, set a smaller "
        "--batch, points_per_batch or tile, or, on a GPU, use --provider cpu"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
