"""A session that runs a cached TensorRT engine."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.bundle.bundle import entry_of
from maskrt.runtime.engines.device_tensor import Place, Tensor
from maskrt.runtime.engines.session import BaseSession, Ports
from maskrt.runtime.engines.tensorrt.context import ExecutionContext
from maskrt.runtime.engines.tensorrt.graph import CaptureFailure
from maskrt.runtime.engines.tensorrt.library import load_tensorrt, logger_of, numpy_type
from maskrt.runtime.engines.tensorrt.memory import Cuda
from maskrt.runtime.engines.tensorrt.refit import ArrayRefit, FileRefit, Refit, require_refittable, require_structure
from maskrt.runtime.engines.tensorrt.store import build_command, read_engine, target_of
from maskrt.runtime.errors import BundleError, NetworkError, OutOfMemory


class TensorRtSession(BaseSession):
    """The engine that `maskrt build` made of an ONNX file, on one GPU.

    Callers share the engine; each that runs at the same time has an execution context, a stream and memory of its own.
    Where nothing changes from run to run, an execution context launches its work as one CUDA graph.
    """

    def __init__(self, path: Path, callers: int = 1, device: int = 0) -> None:
        """Load the engine of an ONNX file.

        Args:
            callers: how many run at the same time; more wait for one another.
            device: the GPU's number.

        Raises:
            ProviderUnavailable: TensorRT, its CUDA bindings or the GPU is absent.
            BundleError: there is no engine, or none for this model, GPU and TensorRT; only maskrt build makes one.
            OutOfMemory: the engine does not fit into the GPU's memory.
        """
        tensorrt, cuda = load_tensorrt(), Cuda(device)
        plan = read_engine(path, target_of(tensorrt, cuda), device)
        logger, messages = logger_of(tensorrt)
        messages.clear()
        cuda.select()  # an engine belongs to the GPU on which it is deserialised
        self._runtime: Any = tensorrt.Runtime(logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            error = messages.error(f"{path.name}: its engine does not load")
            if isinstance(error, OutOfMemory):
                raise error
            raise BundleError(f"{error}: run {build_command(path, device)}")
        ports: dict[bool, Ports] = {True: {}, False: {}}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            is_input = self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
            _, word = numpy_type(self._engine.get_tensor_dtype(name))
            shape = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name))
            ports[is_input][name] = word, shape
        super().__init__(path.name, ports[True], ports[False])
        self.place = Place("TensorRT", device)
        self._cuda, self._messages, self._command = cuda, messages, build_command(path, device)
        self._failure = CaptureFailure()
        # Read now: the bundle may be exported anew while the engine runs.
        self._structure = _structure_of(path) if self._engine.refittable else ""
        # One place per caller; its execution context is opened when it is first needed.
        self._callers = callers
        self._idle: list[ExecutionContext | None] = [None] * callers
        self._refits = 0  # that are under way, or wait for runs to end
        self._changed = threading.Condition()

    @property
    def not_captured(self) -> str:
        """The reason why its runs are launched kernel by kernel, where CUDA cannot capture a graph; else empty."""
        return self._failure.reason

    def _infer(self, feeds: Mapping[str, Tensor], keep_on_device: Collection[str]) -> Sequence[Tensor]:
        if self._engine is None:
            raise ValueError("the session is closed")
        context = self._take()
        try:
            if self._engine is None:
                raise ValueError("the session was closed when its weights could not be set: open it again")
            self._cuda.select()
            if context is None:
                context = self._open_context()
            values = context.run(feeds, self.outputs, keep_on_device)
        except BaseException:  # what failed is not used again; the next run opens another
            try:
                if context is not None:
                    context.close()  # first: it may have work under way, which no refit may meet, and holds memory
            finally:
                self._give_back(None)
            raise
        self._give_back(context)
        return values

    def _open_context(self) -> ExecutionContext:
        assert self.place is not None
        return ExecutionContext(
            self._name, self._command, self._engine, self._cuda, self.place, self._messages, self._failure
        )

    def _take(self) -> ExecutionContext | None:
        """Take a place that no caller has, first one that finds the memory of its outputs, and so its graph, again."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle and not self._refits)
            context = min(self._idle, key=lambda context: 1 if context is None else 0 if context.all_back else 2)
            self._idle.remove(context)
            return context

    def _give_back(self, context: ExecutionContext | None) -> None:
        with self._changed:
            self._idle.append(context)
            self._changed.notify_all()

    def refit(self, model: Path) -> None:
        """Go on with the weights of another file of the same structure.

        Runs that are under way end with the former weights; those that begin meanwhile wait for the new ones. Execution
        contexts and buffers stay, and so do outputs of the former weights that other networks were given. CUDA graphs
        are captured anew. The engine on disk keeps its weights; maskrt build --refit-from makes another.

        Args:
            model: an ONNX file in a bundle, in the precision of this one.

        Raises:
            BundleError: the file is not what its bundle says, it differs from this one in more than its weights, or the
                engine was not built to be refitted. The session goes on as before.
            NetworkError: TensorRT refuses the weights, and the session goes on as before; or it fails while it sets
                them, and the session is closed, since it would compute with a part of them.
        """

        def prepare() -> Refit:
            require_structure(model.name, self._structure, entry_of(model).structure_sha256)
            return FileRefit(load_tensorrt(), self._engine, model)

        self._set_weights(prepare)

    def refit_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Go on with other weights, from memory; those that are not named stay as they are.

        Runs, contexts, device tensors, CUDA graphs and the engine on disk are treated as in `refit`.

        Args:
            weights: initializer of the graph -> float32, C order, of its shape; TensorRT itself sees only the count. No
                one else may write to them meanwhile.

        Raises:
            BundleError: the engine was not built to be refitted. The session goes on as before.
            NetworkError: the engine has no weights of a name, takes others, or has merged given ones with some that
                are not, and the session goes on as before; or TensorRT fails while it sets them, and the session is
                closed, since it would compute with a part of them.
        """
        self._set_weights(lambda: ArrayRefit(load_tensorrt(), self._engine, self._name, weights))

    def _set_weights(self, prepare: Callable[[], Refit]) -> None:
        with self._at_rest():
            if self._engine is None:
                raise NetworkError(f"{self._name}: the session is closed: open it again")
            require_refittable(self._engine, self._name)
            self._cuda.select()
            self._commit(prepare())

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Wait until no caller runs, and let none begin inside the block."""
        with self._changed:
            self._refits += 1
            try:
                self._changed.wait_for(lambda: len(self._idle) == self._callers)
                yield
            finally:
                self._refits -= 1
                self._changed.notify_all()

    def _commit(self, weights: Refit) -> None:
        for context in self._idle:
            if context is not None:
                context.drop_graph()
        try:
            weights.commit()
        except NetworkError as error:
            self._engine = self._runtime = None  # an open execution context holds the engine until it is closed
            raise type(error)(f"{error}: the session is closed, open it again") from error

    def close(self) -> None:
        """Free the contexts, then the engine. No caller may be running; remaining device tensors keep their memory."""
        super().close()
        self._cuda.select()
        with ExitStack() as stack, self._changed:
            for context in self._idle:
                if context is not None:
                    stack.callback(context.close)
            self._idle = [None] * len(self._idle)
        self._engine = self._runtime = None


def _structure_of(model: Path) -> str:
    """Return a model's structure_sha256; empty where its bundle has none, which prevents nothing but a refit."""
    try:
        return entry_of(model).structure_sha256
    except BundleError:
        return ""
