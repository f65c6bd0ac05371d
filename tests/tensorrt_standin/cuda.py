"""A GPU in the host's memory behind the functions of cuda.bindings.runtime.

Work on a stream is done when the stream is waited for, and not before: who reads too early reads rubbish. What a real
GPU would answer with wrong numbers or a crash is written down in `problems`, which a test must find empty.
"""

import ctypes
import enum
import importlib.machinery
import itertools
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

# Function -> its parameters, as cuda-bindings 13.5 documents them; test_standin compares where that is installed.
SIGNATURES = {
    "cudaGetDeviceCount": (),
    "cudaGetDeviceProperties": ("device",),
    "cudaDriverGetVersion": (),
    "cudaGetErrorString": ("error",),
    "cudaMalloc": ("size",),
    "cudaFree": ("devPtr",),
    "cudaMallocHost": ("size",),
    "cudaFreeHost": ("ptr",),
    "cudaMemcpyAsync": ("dst", "src", "count", "kind", "stream"),
    "cudaStreamCreateWithFlags": ("flags",),
    "cudaStreamSynchronize": ("stream",),
    "cudaStreamDestroy": ("stream",),
}


class cudaError_t(enum.IntEnum):  # noqa: N801, RUF100
    """The statuses that the stand-in returns, with CUDA's numbers."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidResourceHandle = 400


class cudaMemcpyKind(enum.IntEnum):  # noqa: N801, RUF100
    """Directions."""

    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3
    cudaMemcpyDefault = 4


class Stream:
    """A handle; int() is its address."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __int__(self) -> int:
        return self._address

    def __index__(self) -> int:
        return self._address


OK, BAD = cudaError_t.cudaSuccess, cudaError_t.cudaErrorInvalidValue


class Device:
    """One GPU: its memory, its streams, and what a program did wrong with them."""

    def __init__(self, name: str = "NVIDIA L4", capability: tuple[int, int] = (8, 9), driver: int = 13000) -> None:
        self.name, self.capability, self.driver = name, capability, driver
        self.memory_bytes = 1 << 32
        self.problems: list[str] = []
        self.allocations: dict[int, np.ndarray] = {}
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, list[tuple[Callable[[], None], set[int]]]] = {}
        self.status = OK  # of every call, to act a machine without a driver
        self.devices = 1
        # What the TensorRT stand-in counts and obeys.
        self.contexts: weakref.WeakSet[Any] = weakref.WeakSet()
        self.most_contexts = self.built = self.deserialised = self.kernels_timed = self.copies_in = 0
        self.refuse_contexts = False
        self.unsupported: set[str] = set()
        self.refitted = 0
        self.withheld: set[str] = set()  # weights that no file's refit reaches
        self._lock = threading.RLock()
        self._addresses = itertools.count(0x7F00_0000_0000, 1 << 32)

    @property
    def held(self) -> dict[str, int]:
        """What is not freed."""
        kinds = {"device": self.allocations, "pinned": self.pinned, "streams": self.streams, "contexts": self.contexts}
        return {kind: len(items) for kind, items in kinds.items() if items}

    def problem(self, text: str) -> None:
        """Note what a real GPU would not forgive."""
        self.problems.append(text)

    def bytes_at(self, address: int, size: int) -> np.ndarray | None:
        """Device memory, if all of it is allocated."""
        with self._lock:
            for begin, block in self.allocations.items():
                if begin <= address and address + size <= begin + block.size:
                    return block[address - begin : address - begin + size]
        self.problem(f"{size} bytes at {address:#x} are not allocated on the device")
        return None

    def host_bytes(self, address: int, size: int) -> np.ndarray | None:
        """Pinned memory, if all of it is allocated."""
        with self._lock:
            for begin, block in self.pinned.items():
                if begin <= address and address + size <= begin + len(block):
                    return np.frombuffer(block, np.uint8, size, address - begin)
        self.problem(f"{size} bytes at {address:#x} are not pinned memory")
        return None

    def later(self, stream: int, work: Callable[[], None], addresses: set[int]) -> None:
        """Append work to a stream, and what memory it will use."""
        self.streams[stream].append((work, addresses))

    def module(self) -> types.ModuleType:
        """cuda.bindings.runtime."""
        module = types.ModuleType("cuda.bindings.runtime")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        module.cudaError_t, module.cudaMemcpyKind, module.cudaStreamNonBlocking = cudaError_t, cudaMemcpyKind, 1
        for name, parameters in SIGNATURES.items():
            setattr(module, name, self._function(name, parameters))
        return module

    def _function(self, name: str, parameters: tuple[str, ...]) -> Callable[..., tuple[Any, ...]]:
        def call(*args: Any) -> tuple[Any, ...]:
            if len(args) != len(parameters):
                raise TypeError(f"{name}() takes {parameters}, got {args}")
            if self.status != OK and name not in ("cudaGetErrorString", "cudaDriverGetVersion"):
                return (self.status, None)
            with self._lock:
                found = getattr(self, f"_{name}")(*args)
            return found if isinstance(found, tuple) else (found,)

        return call

    def _cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return OK, self.devices

    def _cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        major, minor = self.capability
        return OK, types.SimpleNamespace(name=self.name.encode() + bytes(8), major=major, minor=minor)

    def _cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return OK, self.driver

    def _cudaGetErrorString(self, error: cudaError_t) -> tuple[Any, ...]:
        return OK, error.name.encode()

    def _cudaMalloc(self, size: int) -> tuple[Any, ...]:
        used = sum(block.size for block in self.allocations.values())
        if used + size > self.memory_bytes:
            return cudaError_t.cudaErrorMemoryAllocation, None
        address = next(self._addresses)
        # Rubbish, as real memory has; nan in every float type.
        self.allocations[address] = np.full(int(size), 0xFF, np.uint8)
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
        if any(address in used for work in self.streams.values() for _, used in work):
            self.problem(f"{kind} memory freed under work that is not done")
        if blocks.pop(address, None) is None:
            self.problem(f"{address:#x} is no {kind} memory: freed twice?")
            return BAD
        return OK

    def _cudaMemcpyAsync(self, target: int, source: int, count: int, kind: Any, stream: Any) -> Any:
        host_first = kind == cudaMemcpyKind.cudaMemcpyDeviceToHost
        if (not host_first and kind != cudaMemcpyKind.cudaMemcpyHostToDevice) or int(stream) not in self.streams:
            self.problem(f"a copy of kind {kind!r} on stream {int(stream):#x}")
            return BAD
        find = (self.host_bytes, self.bytes_at) if host_first else (self.bytes_at, self.host_bytes)

        def copy() -> None:
            to, origin = find[0](target, count), find[1](source, count)
            if to is not None and origin is not None:
                to[:] = origin

        if find[0](target, count) is None or find[1](source, count) is None:
            return BAD
        self.copies_in += not host_first
        self.later(int(stream), copy, {target, source})
        return OK

    def _cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        address = next(self._addresses)
        self.streams[address] = []
        return OK, Stream(address)

    def _cudaStreamSynchronize(self, stream: Any) -> Any:
        if int(stream) not in self.streams:
            self.problem("waited for a stream that there is not")
            return cudaError_t.cudaErrorInvalidResourceHandle
        work, self.streams[int(stream)] = self.streams[int(stream)], []
        for each, _ in work:
            each()
        return OK

    def _cudaStreamDestroy(self, stream: Any) -> Any:
        work = self.streams.pop(int(stream), None)
        if work is None or work:
            self.problem("a stream destroyed twice, or with work that is not done")
        return OK if work is not None else cudaError_t.cudaErrorInvalidResourceHandle
