"""The stand-in's execution contexts: ONNX Runtime computes, on memory and streams of the stand-in's GPU."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorrt_standin.cuda import Device
from tensorrt_standin.streams import Work, cudaError_t

NUMPY = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "INT8": "int8", "INT32": "int32", "INT64": "int64"}
ALIGNMENT = 256  # of a tensor's address, in bytes


def context_class(trt: Any, device: Device, log_error: Callable[[str], None]) -> type:
    """The behaviour of IExecutionContext, of one module on one machine."""

    class Context:
        def __init__(self, engine: Any) -> None:
            self.owner, self.running = engine, False
            self.shapes: dict[str, Any] = {}
            self.addresses: dict[str, int] = {}
            self.prepared: dict[str, tuple[int, ...]] | None = None  # the shapes of the last run that was not captured

        def set_input_shape(self, name: str, shape: Any) -> bool:
            self.check_idle()
            least, _, most = self.owner.ranges(name)
            sizes = tuple(int(size) for size in shape)
            inside = all(low <= size <= high for low, size, high in zip(least, sizes, most, strict=False))
            if len(sizes) != len(least) or not inside:
                log_error(f"{name}: {sizes} is not within the profile")
                return False
            self.shapes[name] = sizes
            return True

        def infer_shapes(self) -> list[str]:
            return [name for name in self.owner.inputs if name not in self.shapes and not self.is_static(name)]

        def is_static(self, name: str) -> bool:
            return -1 not in sizes_of(self.owner.values[name])

        def get_tensor_shape(self, name: str) -> Any:
            if name in self.shapes:
                return trt.Dims(self.shapes[name])
            if self.is_static(name):
                return trt.Dims(sizes_of(self.owner.values[name]))
            # The graphs' sizes do not depend on values: those of zeros are those of all.
            known = self.owner.known_sizes.setdefault(tuple(sorted(self.shapes.items())), {})
            if not known:
                feeds = {key: np.zeros(shape, self.dtype(key)) for key, shape in self.shapes.items()}
                known |= zip(self.owner.outputs, (v.shape for v in self.owner.session.run(None, feeds)), strict=True)
            return trt.Dims(known[name])

        def dtype(self, name: str) -> str:
            return NUMPY[self.owner.get_tensor_dtype(name).name]

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self.check_idle()
            if memory % ALIGNMENT:
                device.problem(f"{name} at {memory:#x}, which is no multiple of {ALIGNMENT}")
                log_error("the address is not aligned")
                return False
            self.addresses[name] = memory
            return name in self.owner.values

        def execute_async_v3(self, stream_handle: int) -> bool:
            self.check_idle()
            names = (*self.owner.inputs, *self.owner.outputs)
            if int(stream_handle) not in device.streams or set(self.addresses) != set(names) or self.infer_shapes():
                log_error("a stream, an address or a shape is missing")
                return False
            places = {}
            for name in names:
                shape = tuple(self.get_tensor_shape(name))
                nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(self.dtype(name)).itemsize
                if device.bytes_at(self.addresses[name], nbytes) is None:
                    return False
                places[name] = self.addresses[name], nbytes, shape
            self.check_gpu(int(stream_handle))
            if device.last_error:
                log_error(f"{device.last_error.name}, which an earlier call has left")
                return False
            if int(stream_handle) in device.captures:
                if self.shapes != self.prepared:
                    device.problem("captured before a run had prepared for the shapes")
                if device.refuse_capture == "execute":
                    device.last_error = cudaError_t.cudaErrorStreamCaptureUnsupported
                    log_error("a layer cannot be captured")
                    return False
            told = dict(self.shapes), dict(self.addresses), self.owner.refits
            reads, writes = (
                frozenset(device.block_of(self.addresses[name]) for name in part)
                for part in (self.owner.inputs, self.owner.outputs)
            )
            work = Work(lambda: self.compute(places), reads, writes, lambda: self.begin(told))
            device.later(int(stream_handle), work)
            return True

        def begin(self, told: tuple[dict[str, Any], dict[str, Any], int]) -> None:
            """Its work goes to a stream, now or from a graph that was captured earlier."""
            self.check_idle()
            if told[:2] != (self.shapes, self.addresses):
                device.problem("a graph of other shapes or addresses than its execution context has by now")
            if told[2] != self.owner.refits:
                device.problem("a graph from before its engine was refitted")
            self.prepared, self.running = dict(self.shapes), True

        def check_gpu(self, stream: int) -> None:
            used = [stream, *(device.block_of(address) for address in self.addresses.values())]
            if {self.owner.gpu} != {device.selected, *(device.gpu_of[each] for each in used)}:
                device.problem("an engine runs on a GPU, or with a stream or memory of one, that is not its own")

        def compute(self, places: dict[str, Any]) -> None:
            self.running = False
            memory: dict[str, Any] = {
                name: device.bytes_at(address, nbytes) for name, (address, nbytes, _) in places.items()
            }
            if any(found is None for found in memory.values()):
                return
            feeds = {n: memory[n].view(self.dtype(n)).reshape(places[n][2]).copy() for n in self.owner.inputs}
            for name, value in zip(self.owner.outputs, self.owner.session.run(None, feeds), strict=True):
                memory[name][:] = np.ascontiguousarray(value).view(np.uint8).reshape(-1)

        def check_idle(self) -> None:
            if self.running:
                device.problem("an execution context used again before its stream was waited for")

    return Context


def sizes_of(value: Any) -> tuple[int, ...]:
    """The sizes of an ONNX value, -1 for a dynamic axis."""
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)
