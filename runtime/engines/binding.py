"""Runs of an ONNX Runtime session whose tensors lie on a device."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.engines.device_tensor import DeviceTensor, Place, Tensor
from maskrt.runtime.engines.onnxruntime_options import DeviceMemory

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


class Binding:
    """The runner of a session whose inputs and outputs are bound to where they lie. Any number of callers may use it.

    ONNX Runtime ends a run when the device is done with it, so any other run can read what it has returned.
    Source: onnxruntime/core/session/inference_session.cc, disable_synchronize_execution_providers, off by default.
    """

    def __init__(self, session: Any, run_options: Any, memory: DeviceMemory, device: int) -> None:
        """Take an InferenceSession, the memory of its device, and the device's number."""
        self.place = Place("ONNX Runtime", device)
        self._session, self._run_options, self._memory = session, run_options, memory

    def run(
        self, feeds: Mapping[str, Tensor], outputs: Collection[str], keep_on_device: Collection[str]
    ) -> list[Tensor]:
        """Run the session, and return the outputs in their order: device tensors to keep, the others on the host.

        Args:
            feeds: device tensors of this place; arrays are copied to the device.
        """
        binding = self._session.io_binding()
        for name, value in feeds.items():
            self._bind(binding, name, value)
        for name in outputs:
            if name in keep_on_device:
                binding.bind_output(name, self._memory.device_type, self.place.device)
            else:
                binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, self._run_options)
        found = zip(outputs, binding.get_outputs(), strict=True)
        return [self._device_tensor(value) if name in keep_on_device else value.numpy() for name, value in found]

    def _bind(self, binding: Any, name: str, value: Tensor) -> None:
        if isinstance(value, DeviceTensor) and value.address % self._memory.alignment == 0:
            place = self._memory.device_type, self.place.device
            binding.bind_input(name, *place, value.dtype, list(value.shape), value.address)
            return
        # Rows that begin where no tensor may begin go through the host, since ONNX Runtime cannot copy a part within a
        # device. Among SAM's tensors only `kernels` has such rows, 384 bytes each, and for ort-tensorrt alone.
        array = value.numpy() if isinstance(value, DeviceTensor) else value
        binding.bind_cpu_input(name, np.ascontiguousarray(array))

    def _device_tensor(self, value: Any) -> DeviceTensor:
        memory = _OrtMemory(value, self._session)
        return DeviceTensor(self.place, memory, tuple(value.shape()), np.dtype(_DTYPES[value.data_type()]))


@dataclass(frozen=True)
class _OrtMemory:
    """An OrtValue, which gives its block back to the session's arena when it goes, and the session with that arena."""

    value: Any
    session: Any

    @property
    def address(self) -> int:
        return int(self.value.data_ptr())

    def fetch(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        flat: NDArray[np.uint8] = self.value.numpy().reshape(-1).view(np.uint8)
        return flat[offset : offset + nbytes].copy()
