"""The execution context with which one caller at a time runs a TensorRT engine."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.engines.device_tensor import DeviceTensor, Place, Tensor
from maskrt.runtime.engines.tensorrt.graph import CaptureFailure, CudaGraphRunner
from maskrt.runtime.engines.tensorrt.library import Messages, numpy_type
from maskrt.runtime.engines.tensorrt.memory import Buffer, Cuda, Stream
from maskrt.runtime.engines.tensorrt.pool import Block, DevicePool


class ExecutionContext(Closeable):
    """TensorRT's execution context with a stream, buffers that grow as they must, and a device pool for kept outputs.

    A run ends when its stream is done, so the outputs that it hands over are whole, and its feeds are no longer in use.
    """

    def __init__(
        self,
        name: str,
        command: str,
        engine: Any,
        cuda: Cuda,
        place: Place,
        messages: Messages,
        failure: CaptureFailure,
    ) -> None:
        """Create the context. name: of the model; command: what builds its engine; place: of the device tensors.

        Raises:
            OutOfMemory, NetworkError: TensorRT cannot create it.
        """
        self._name, self._command, self._engine, self._messages = name, command, engine, messages
        messages.clear()
        self._context: Any = engine.create_execution_context()
        if self._context is None:
            raise messages.error(f"{name}: TensorRT cannot create an execution context")
        self._place = place
        self._stream = Stream(cuda)
        self._buffers: dict[str, Buffer] = {}
        self._pool = DevicePool(cuda)
        self._graph_runner = CudaGraphRunner(cuda, self._stream, failure)
        self._shapes: dict[str, tuple[int, ...]] = {}  # those that the context was given last
        self._addresses: dict[str, int] = {}
        self._cuda = cuda

    @property
    def all_back(self) -> bool:
        """Whether all memory of its kept outputs is back, so that the next run finds what the last one found."""
        return self._pool.all_back

    def run(
        self, feeds: Mapping[str, Tensor], outputs: Collection[str], keep_on_device: Collection[str]
    ) -> list[Tensor]:
        """Run the engine, and return the outputs: device tensors of those to keep_on_device, copies of the others."""
        self._messages.clear()
        for name, value in feeds.items():
            self._set_shape(name, value)
        if missing := self._context.infer_shapes():
            raise ValueError(f"the engine needs the shapes of {', '.join(missing)} too")
        for name, value in feeds.items():
            self._bind(name, self._placed(name, value))
        kept: dict[str, DeviceTensor] = {}
        fetched: dict[str, tuple[Buffer, tuple[int, ...], np.dtype[Any]]] = {}
        for name in outputs:
            shape, dtype = self._output(name)
            nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            memory: Block | Buffer
            if name in keep_on_device:
                memory = self._pool.take(name, nbytes)
                kept[name] = DeviceTensor(self._place, memory, shape, dtype)
                self._bind(name, memory.address)
            else:
                memory = self._buffers.setdefault(name, Buffer(self._cuda))
                memory.reserve(nbytes)
                fetched[name] = memory, shape, dtype
                self._bind(name, memory.device)
        self._graph_runner.enqueue((dict(self._shapes), dict(self._addresses)), self._execute)
        for buffer, shape, dtype in fetched.values():
            buffer.fetch(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, self._stream)
        self._stream.wait()
        copies = {name: buffer.view(shape, dtype).copy() for name, (buffer, shape, dtype) in fetched.items()}
        return [kept[name] if name in kept else copies[name] for name in outputs]

    def drop_graph(self) -> None:
        """Drop the CUDA graph, since the engine's weights change; the next run but one captures it anew.

        No run may be under way.
        """
        self._graph_runner.close()

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._messages.error(f"{self._name} failed")

    def _set_shape(self, name: str, value: Tensor) -> None:
        dtype, _ = numpy_type(self._engine.get_tensor_dtype(name))
        if value.dtype != dtype:  # the GPU would read the bytes as they are
            raise ValueError(f"{name} is {value.dtype}, the graph takes {np.dtype(dtype).name}")
        if self._shapes.get(name) == value.shape:
            return
        if not self._context.set_input_shape(name, value.shape):
            fixed = tuple(self._engine.get_tensor_shape(name))
            ranges = self._engine.get_tensor_profile_shape(name, 0) if min(fixed, default=0) < 0 else [fixed] * 3
            least, _, most = (tuple(shape) for shape in ranges)
            raise ValueError(
                f"{name} has shape {value.shape}, its engine takes {least} to {most}: build it again for the settings "
                f"that are used: {self._command} --batch N --set KEY=VALUE"
            )
        self._shapes[name] = value.shape

    def _output(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return the shape and type that an output will have."""
        dtype, _ = numpy_type(self._engine.get_tensor_dtype(name))
        shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise ValueError(f"the size of {name} depends on the data, which maskrt's graphs never do: export again")
        return shape, np.dtype(dtype)

    def _placed(self, name: str, value: Tensor) -> int:
        """Return the address of a feed on the device, where it will be once the stream gets to it."""
        if isinstance(value, DeviceTensor) and not value.part:
            return value.address
        buffer = self._buffers.setdefault(name, Buffer(self._cuda))
        if not isinstance(value, DeviceTensor):
            buffer.send(value, self._stream)
            return buffer.device
        # Rows are copied, 2 MB for a prompt of ViT-B: they begin at addresses that TensorRT does not take, since it
        # wants multiples of 256, and each elsewhere, so that no CUDA graph could be used twice.
        buffer.reserve(value.nbytes)
        self._stream.copy_within(buffer.device, value.address, value.nbytes)
        return buffer.device

    def _bind(self, name: str, address: int) -> None:
        if self._addresses.get(name) == address:
            return
        if not self._context.set_tensor_address(name, address):
            raise self._messages.error(f"{self._name}: TensorRT refuses the address of {name}")
        self._addresses[name] = address

    def close(self) -> None:
        """Wait for the stream, then free everything, whatever fails on the way."""
        with ExitStack() as stack:
            stack.callback(self._pool.close)
            for buffer in self._buffers.values():
                stack.callback(buffer.close)
            stack.callback(self._graph_runner.close)
            stack.callback(self._stream.close)  # last in, first out: nothing is freed under running work
        self._buffers.clear()
        self._context = None
