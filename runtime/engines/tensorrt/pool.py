"""Output memory that each run hands over to device tensors, and that comes back when they are gone."""

import threading
import weakref

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.engines.tensorrt.memory import Buffer, Cuda, Stream


class Block:
    """Device memory, kept by the device tensors on it."""

    def __init__(self, cuda: Cuda, address: int) -> None:
        self.address = address
        self._cuda = cuda

    def fetch(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """Copy a part of it to the host: uint8 [nbytes]."""
        self._cuda.select()
        with Buffer(self._cuda) as buffer, Stream(self._cuda) as stream:
            buffer.reserve(nbytes)
            stream.copy_within(buffer.device, self.address + offset, nbytes)
            buffer.fetch(nbytes, stream)
            stream.wait()
            found: NDArray[np.uint8] = buffer.view((nbytes,), np.uint8).copy()
        return found


class DevicePool(Closeable):
    """The memory blocks of one execution context's outputs, under the outputs' names. Any thread may drop one.

    Allocating and freeing make the whole GPU wait, and a graph holds addresses: so a block that comes back is kept for
    the next run. What comes back is no longer in use, since a run ends when its stream is done with what it was fed.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._idle: dict[str, list[tuple[int, int]]] = {}  # name -> address and size of what is there
        self._out = 0
        self._closed = False
        self._lock = threading.RLock()  # a block may be dropped wherever Python allocates, also in here

    @property
    def all_back(self) -> bool:
        """Whether none of its blocks is in use."""
        return self._out == 0

    def take(self, name: str, nbytes: int) -> Block:
        """Return a block of at least `nbytes`: the one that was given back last, where it suffices.

        Raises:
            OutOfMemory: the GPU's memory is full.
        """
        with self._lock:
            address = size = 0
            idle = self._idle.setdefault(name, [])
            while idle and not address:
                address, size = idle.pop()
                if size < nbytes:
                    self._cuda.call("cudaFree", address)
                    address = 0
            if not address:
                size = max(nbytes, 1)  # an empty tensor has an address too
                address = self._cuda.call("cudaMalloc", size)
            block = Block(self._cuda, address)
            self._out += 1
        # Not __del__, which could be called while it is still half made, or find the modules gone.
        weakref.finalize(block, self._back, name, address, size).atexit = False  # CUDA frees what a process has left
        return block

    def _back(self, name: str, address: int, size: int) -> None:
        with self._lock:
            self._out -= 1
            if self._closed:
                self._cuda.call("cudaFree", address)  # an address says its GPU, whichever is the thread's
            else:
                self._idle[name].append((address, size))

    def close(self) -> None:
        """Free the idle blocks; those in use are freed when they come back."""
        with self._lock:
            self._closed = True
            while self._idle:
                _, idle = self._idle.popitem()
                for address, _ in idle:
                    self._cuda.call("cudaFree", address)
