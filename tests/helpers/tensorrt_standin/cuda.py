"""A GPU in the host's memory behind the functions of cuda.bindings.runtime.

Work on a stream is done when the stream is waited for, and not before: who reads too early reads rubbish. What a real
GPU would answer with wrong numbers or a crash is written down in `problems`, which a test must find empty.
"""

import ctypes
import enum
import importlib.machinery
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorrt_standin.streams import BAD, OK, Handle, Streams, Work, cudaError_t, cudaStreamCaptureMode

# Function -> its parameters, as cuda-bindings 13.5 documents them; test_standin compares where that is installed.
SIGNATURES = {
    "cudaGetDeviceCount": (),
    "cudaGetDeviceProperties": ("device",),
    "cudaDriverGetVersion": (),
    "cudaGetErrorString": ("error",),
    "cudaGetLastError": (),
    "cudaMalloc": ("size",),
    "cudaFree": ("devPtr",),
    "cudaMallocHost": ("size",),
    "cudaFreeHost": ("ptr",),
    "cudaMemcpyAsync": ("dst", "src", "count", "kind", "stream"),
    "cudaStreamCreateWithFlags": ("flags",),
    "cudaStreamSynchronize": ("stream",),
    "cudaStreamDestroy": ("stream",),
    "cudaSetDevice": ("device",),
    "cudaStreamBeginCapture": ("stream", "mode"),
    "cudaStreamEndCapture": ("stream",),
    "cudaGraphInstantiate": ("graph", "flags"),
    "cudaGraphLaunch": ("graphExec", "stream"),
    "cudaGraphDestroy": ("graph",),
    "cudaGraphExecDestroy": ("graphExec",),
}
NOT_IN_CAPTURE = ("cudaMalloc", "cudaFree", "cudaMallocHost", "cudaFreeHost", "cudaStreamSynchronize")


class cudaMemcpyKind(enum.IntEnum):  # noqa: N801, RUF100
    """Directions."""

    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3
    cudaMemcpyDefault = 4


class Device(Streams):
    """The GPUs of a machine: their memory, their streams, and what a program did wrong with them."""

    def __init__(self, name: str = "NVIDIA L4", capability: tuple[int, int] = (8, 9), driver: int = 13000) -> None:
        super().__init__()
        self.name, self.capability, self.driver = name, capability, driver
        self.others = ("NVIDIA T4", (7, 5))  # all GPUs but the first
        self.memory_bytes = 1 << 32
        self.allocations: dict[int, np.ndarray] = {}
        self.pinned: dict[int, Any] = {}
        self.gpu_of: dict[int, int] = {}  # address of memory or of a stream -> number of its GPU
        self.status = OK
        self.devices = 1
        # What the TensorRT stand-in counts and obeys.
        self.contexts: weakref.WeakSet[Any] = weakref.WeakSet()
        self.most_contexts = self.built = self.deserialised = self.kernels_timed = 0
        self.copies = dict.fromkeys(cudaMemcpyKind, 0)
        self.refuse_contexts = False
        self.unsupported: set[str] = set()
        self.refitted = 0
        self.withheld: set[str] = set()  # weights that no file's refit reaches, and that are merged with all others
        self._lock = threading.RLock()
        self._threads = threading.local()

    @property
    def selected(self) -> int:
        """The GPU that the calling thread has chosen; at first number 0, whatever other threads have chosen."""
        return getattr(self._threads, "gpu", 0)

    @property
    def last_error(self) -> cudaError_t:
        """The calling thread's last error, until it is asked for; what comes next may take it for its own."""
        return getattr(self._threads, "error", OK)

    @last_error.setter
    def last_error(self, error: cudaError_t) -> None:
        self._threads.error = error

    def named(self, gpu: int) -> tuple[str, tuple[int, int]]:
        """A GPU's name and compute capability."""
        return self.others if gpu else (self.name, self.capability)

    def block_of(self, address: int) -> int:
        """The beginning of the memory that an address is in; the address where it is in none."""
        with self._lock:
            for begin, block in (*self.allocations.items(), *self.pinned.items()):
                if begin <= address < begin + len(block):
                    return begin
        return address

    @property
    def held(self) -> dict[str, int]:
        """Kind -> how many of it are not freed."""
        kinds = {"device": self.allocations, "pinned": self.pinned, "streams": self.streams, "contexts": self.contexts}
        kinds |= {"graphs": self.graphs, "executables": self.executables}
        return {kind: len(items) for kind, items in kinds.items() if items}

    def bytes_at(self, address: int, size: int) -> Any:
        """Device memory, if all of it is allocated."""
        with self._lock:
            for begin, block in self.allocations.items():
                if begin <= address and address + size <= begin + block.size:
                    return block[address - begin : address - begin + size]
        self.problem(f"{size} bytes at {address:#x} are not allocated on the device")
        return None

    def host_bytes(self, address: int, size: int) -> Any:
        """Pinned memory, if all of it is allocated."""
        with self._lock:
            for begin, block in self.pinned.items():
                if begin <= address and address + size <= begin + len(block):
                    return np.frombuffer(block, np.uint8, size, address - begin)
        self.problem(f"{size} bytes at {address:#x} are not pinned memory")
        return None

    def module(self) -> types.ModuleType:
        """cuda.bindings.runtime."""
        module: Any = types.ModuleType("cuda.bindings.runtime")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        module.cudaError_t, module.cudaMemcpyKind, module.cudaStreamNonBlocking = cudaError_t, cudaMemcpyKind, 1
        module.cudaStreamCaptureMode = cudaStreamCaptureMode
        for name, parameters in SIGNATURES.items():
            setattr(module, name, self._function(name, parameters))
        return module

    def _function(self, name: str, parameters: tuple[str, ...]) -> Callable[..., tuple[Any, ...]]:
        def call(*args: Any) -> tuple[Any, ...]:
            if len(args) != len(parameters):
                raise TypeError(f"{name}() takes {parameters}, got {args}")
            if self.status != OK and name not in ("cudaGetErrorString", "cudaGetLastError", "cudaDriverGetVersion"):
                return (self.status, None)
            with self._lock:
                if name in NOT_IN_CAPTURE:
                    self.forbid_in_capture(name)
                found = getattr(self, f"_{name}")(*args)
            found = found if isinstance(found, tuple) else (found,)
            if found[0] != OK and name != "cudaGetLastError":
                self.last_error = found[0]
            return found

        return call

    def _cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return OK, self.devices

    def _cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        name, (major, minor) = self.named(device)
        return OK, types.SimpleNamespace(name=name.encode() + bytes(8), major=major, minor=minor)

    def _cudaSetDevice(self, device: int) -> Any:
        if not 0 <= device < self.devices:
            return cudaError_t.cudaErrorInvalidDevice
        self._threads.gpu = device
        return OK

    def _cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return OK, self.driver

    def _cudaGetErrorString(self, error: cudaError_t) -> tuple[Any, ...]:
        return OK, error.name.encode()

    def _cudaGetLastError(self) -> tuple[Any, ...]:
        error, self.last_error = self.last_error, OK
        return (error,)

    def _cudaMalloc(self, size: int) -> tuple[Any, ...]:
        used = sum(block.size for block in self.allocations.values())
        if used + size > self.memory_bytes:
            return cudaError_t.cudaErrorMemoryAllocation, None
        address = next(self._addresses)
        # Rubbish, as real memory has; nan in every float type.
        self.allocations[address] = np.full(int(size), 0xFF, np.uint8)
        self.gpu_of[address] = self.selected
        return OK, address

    def _cudaFree(self, address: int) -> Any:
        return self._free(self.allocations, address, "device")

    def _cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        block = (ctypes.c_uint8 * int(size))(*b"\xff" * min(int(size), 64))
        self.pinned[ctypes.addressof(block)] = block
        return OK, ctypes.addressof(block)

    def _cudaFreeHost(self, address: int) -> Any:
        return self._free(self.pinned, address, "pinned")

    def _free(self, blocks: dict[int, Any], address: int, kind: str) -> Any:
        if any(address in work.reads | work.writes for queued in self.streams.values() for work in queued):
            self.problem(f"{kind} memory freed under work that is not done")
        if blocks.pop(address, None) is None:
            self.problem(f"{address:#x} is no {kind} memory: freed twice?")
            return BAD
        return OK

    def _cudaMemcpyAsync(self, target: int, source: int, count: int, kind: Any, stream: Any) -> Any:
        ends = {
            cudaMemcpyKind.cudaMemcpyHostToDevice: (self.bytes_at, self.host_bytes),
            cudaMemcpyKind.cudaMemcpyDeviceToHost: (self.host_bytes, self.bytes_at),
            cudaMemcpyKind.cudaMemcpyDeviceToDevice: (self.bytes_at, self.bytes_at),
        }
        if kind not in ends or int(stream) not in self.streams:
            self.problem(f"a copy of kind {kind!r} on stream {int(stream):#x}")
            return BAD
        find = ends[kind]

        def copy() -> None:
            to, origin = find[0](target, count), find[1](source, count)
            if to is not None and origin is not None:
                to[:] = origin

        if find[0](target, count) is None or find[1](source, count) is None:
            return BAD
        reads, writes = self.block_of(source), self.block_of(target)
        if len({self.gpu_of[each] for each in (int(stream), reads, writes) if each in self.gpu_of}) > 1:
            self.problem("a copy between GPUs, or on the stream of another")
        self.copies[kind] += 1
        self.later(int(stream), Work(copy, frozenset({reads}), frozenset({writes})))
        return OK

    def _cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        address = next(self._addresses)
        self.streams[address] = []
        self.gpu_of[address] = self.selected
        return OK, Handle(address)
