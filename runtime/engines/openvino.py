"""Sessions of OpenVINO, a second engine for CPUs."""

import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrt.runtime.engines.device_tensor import Tensor
from maskrt.runtime.engines.model_file import Entry, read_model
from maskrt.runtime.engines.session import BaseSession, Ports, first_line
from maskrt.runtime.errors import BundleError, ProviderUnavailable

OPENVINO = {"openvino": "f32", "openvino-bf16": "bf16"}
_ELEMENT_TYPES = {"f32": "float", "u8": "uint8", "i64": "int64", "i32": "int32", "boolean": "bool"}


class OpenVinoSession(BaseSession):
    """An ONNX file in OpenVINO on the CPU, in the precision that the provider's name says."""

    def __init__(
        self,
        path: Path,
        provider: str = "openvino",
        threads: int | None = None,
        callers: int = 1,
        entry: Entry | None = None,
    ) -> None:
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
        file = read_model(path, entry)
        try:
            # OpenVINO takes no weights beside the model from memory: such a model is opened by its path again.
            model = core.read_model(path if file.external else file.model)
            self._compiled: Any = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise BundleError(f"{path.name} cannot be loaded by OpenVINO: {first_line(error)}") from error
        compiled = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if compiled != precision:
            raise ProviderUnavailable(
                f"{provider} requested, OpenVINO took {compiled} for {path.name}: use --provider cpu"
            )
        # A request belongs to one thread at a time.
        self._requests = threading.local()
        super().__init__(path.name, _openvino_ports(self._compiled.inputs), _openvino_ports(self._compiled.outputs))

    def _infer(self, feeds: Mapping[str, Tensor], keep_on_device: Collection[str]) -> Sequence[Tensor]:
        if not hasattr(self._requests, "request"):
            self._requests.request = self._compiled.create_infer_request()
        request = self._requests.request
        request.infer(dict(feeds))
        # Copied: the tensors belong to the request, which its next run overwrites.
        return [np.array(request.get_output_tensor(index).data) for index in range(len(self.outputs))]

    def close(self) -> None:
        """Free the model's memory."""
        super().close()
        self._compiled, self._requests = None, threading.local()


def _openvino_ports(ports: Any) -> Ports:
    """Describe ports in ONNX Runtime's words, so that a session looks the same whatever runs it."""
    return {
        # Not get_any_name: where an operator in between was removed, a port has the names of both its ends.
        port.get_node().get_friendly_name().removesuffix("/sink_port_0"): (
            f"tensor({_ELEMENT_TYPES.get(name := port.get_element_type().get_type_name(), name)})",
            tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape()),
        )
        for port in ports
    }
