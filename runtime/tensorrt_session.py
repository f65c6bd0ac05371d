"""A session that runs a cached TensorRT engine."""

import queue
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from maskrt.runtime.closing import Closing
from maskrt.runtime.cuda_memory import Buffer, Cuda, Stream
from maskrt.runtime.engines import Array, Engine, Ports
from maskrt.runtime.errors import BundleError, OutOfMemory
from maskrt.runtime.tensorrt_library import Messages, load_tensorrt, logger_of, numpy_type
from maskrt.runtime.tensorrt_store import build_command, read_engine, target_of

TENSORRT = "tensorrt"  # the provider


class TensorRtSession(Engine):
    """The engine that `maskrt build` made of an ONNX file, on the first GPU.

    Callers share the engine; each that runs at the same time has an execution context, a stream and buffers of its own.
    """

    def __init__(self, path: Path, callers: int = 1) -> None:
        """callers: that run at the same time; more wait for one another.

        Raises:
            ProviderUnavailable: TensorRT, its CUDA bindings or a GPU is absent.
            BundleError: there is no engine, or none for this model, GPU and TensorRT; only maskrt build makes one.
            OutOfMemory: the engine does not fit into the GPU's memory.
        """
        tensorrt, cuda = load_tensorrt(), Cuda()
        plan = read_engine(path, target_of(tensorrt, cuda))
        logger, messages = logger_of(tensorrt)
        messages.clear()
        self._runtime: Any = tensorrt.Runtime(logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            error = messages.error(f"{path.name}: its engine does not load")
            if isinstance(error, OutOfMemory):
                raise error
            raise BundleError(f"{error}: run {build_command(path)}")
        ports: dict[bool, Ports] = {True: {}, False: {}}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            is_input = self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
            _, word = numpy_type(self._engine.get_tensor_dtype(name))
            shape = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name))
            ports[is_input][name] = word, shape
        super().__init__(path.name, ports[True], ports[False])
        self._cuda, self._messages, self._command = cuda, messages, build_command(path)
        # One place per caller; its lane is opened when it is first needed.
        self._lanes: queue.LifoQueue[_Lane | None] = queue.LifoQueue()
        for _ in range(callers):
            self._lanes.put(None)

    def _infer(self, feeds: Mapping[str, Array]) -> list[Array]:
        if self._engine is None:
            raise ValueError("the session is closed")
        if set(feeds) != set(self.inputs):
            raise ValueError(f"it takes {', '.join(self.inputs)}, not {', '.join(feeds)}")
        lane = self._lanes.get()
        try:
            if lane is None:
                lane = _Lane(self._name, self._command, self._engine, self._cuda, self._messages)
            values = lane.run(feeds, tuple(self.outputs))
        except BaseException:  # what failed is not used again; the next run opens another
            self._lanes.put(None)
            if lane is not None:
                lane.close()
            raise
        self._lanes.put(lane)
        return values

    def close(self) -> None:
        """Free the contexts, then the engine. No caller may be running."""
        with ExitStack() as stack:
            while not self._lanes.empty():
                lane = self._lanes.get()
                if lane is not None:
                    stack.callback(lane.close)
        self._engine = self._runtime = None


class _Lane(Closing):
    """What one caller at a time runs with: an execution context, a stream, and buffers that grow as they must."""

    def __init__(self, name: str, command: str, engine: Any, cuda: Cuda, messages: Messages) -> None:
        """name: of the model; command: what builds its engine."""
        self._name, self._command, self._engine, self._messages = name, command, engine, messages
        messages.clear()
        self._context: Any = engine.create_execution_context()
        if self._context is None:
            raise messages.error(f"{name}: no execution context")
        self._stream = Stream(cuda)
        self._buffers: dict[str, Buffer] = {}
        self._cuda = cuda

    def run(self, feeds: Mapping[str, Array], outputs: tuple[str, ...]) -> list[Array]:
        """The outputs' values, copied."""
        self._messages.clear()
        for name, value in feeds.items():
            self._set_shape(name, value)
        if missing := self._context.infer_shapes():
            raise ValueError(f"the engine wants shapes of {', '.join(missing)} too")
        for name, value in feeds.items():
            buffer = self._buffer(name)
            buffer.send(value, self._stream)
            self._bind(name, buffer)
        found = []
        for name in outputs:
            dtype, _ = numpy_type(self._engine.get_tensor_dtype(name))
            shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise ValueError(
                    f"the size of {name} depends on the data, which maskrt's graphs never do: export again"
                )
            buffer, nbytes = self._buffer(name), int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            buffer.reserve(nbytes)
            self._bind(name, buffer)
            found.append((buffer, nbytes, shape, dtype))
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._messages.error(f"{self._name} failed")
        for buffer, nbytes, _, _ in found:
            buffer.fetch(nbytes, self._stream)
        self._stream.wait()
        return [buffer.view(shape, dtype).copy() for buffer, _, shape, dtype in found]

    def _set_shape(self, name: str, value: Array) -> None:
        dtype, _ = numpy_type(self._engine.get_tensor_dtype(name))
        if value.dtype != dtype:  # the GPU would read the bytes as they are
            raise ValueError(f"{name} is {value.dtype}, the graph takes {np.dtype(dtype).name}")
        if not self._context.set_input_shape(name, value.shape):
            fixed = tuple(self._engine.get_tensor_shape(name))
            ranges = self._engine.get_tensor_profile_shape(name, 0) if min(fixed, default=0) < 0 else [fixed] * 3
            least, _, most = (tuple(shape) for shape in ranges)
            raise ValueError(
                f"{name} has shape {value.shape}, its engine takes {least} to {most}: build it again for the settings "
                f"that are used: {self._command} --batch N --set KEY=VALUE"
            )

    def _bind(self, name: str, buffer: Buffer) -> None:
        if not self._context.set_tensor_address(name, buffer.device):
            raise self._messages.error(f"{self._name}: {name} takes no address")

    def _buffer(self, name: str) -> Buffer:
        return self._buffers.setdefault(name, Buffer(self._cuda))

    def close(self) -> None:
        """Wait for the stream, then free everything, whatever fails on the way."""
        with ExitStack() as stack:
            for buffer in self._buffers.values():
                stack.callback(buffer.close)
            stack.callback(self._stream.close)  # last in, first out: nothing is freed under a running copy
        self._buffers.clear()
        self._context = None
