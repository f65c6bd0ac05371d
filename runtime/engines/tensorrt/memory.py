"""GPU memory, streams and copies, through cuda.bindings.runtime. The status of every call is checked."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.errors import NetworkError, OutOfMemory, ProviderUnavailable


@dataclass(frozen=True)
class Gpu:
    """The GPU and driver that an engine depends on. driver: the CUDA version of the driver, such as 13.0."""

    name: str
    compute_capability: str
    driver: str


class Cuda:
    """The CUDA runtime of this process, and one of the GPUs that CUDA_VISIBLE_DEVICES leaves it."""

    def __init__(self, device: int = 0) -> None:
        """Load the CUDA bindings; raise ProviderUnavailable where they or the GPU of this number are absent."""
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise ProviderUnavailable(f"CUDA cannot be loaded ({error}): pip install 'maskrt[tensorrt]'") from error
        self.runtime: Any = runtime
        self.device = device
        try:
            count = self.call("cudaGetDeviceCount")
        except NetworkError as error:
            raise ProviderUnavailable(f"{error}: see whether nvidia-smi finds the GPU and its driver") from error
        if not count:
            raise ProviderUnavailable("CUDA finds no GPU: see nvidia-smi, and what CUDA_VISIBLE_DEVICES hides")
        if device >= count:
            raise ProviderUnavailable(
                f"GPU {device} requested, CUDA finds {count}, counted from 0: see nvidia-smi, and what "
                "CUDA_VISIBLE_DEVICES hides"
            )

    def select(self) -> None:
        """Let the calling thread allocate, create and launch on this GPU.

        Each thread starts on the first GPU, and other libraries may change that: so all work begins with this call.
        """
        self.call("cudaSetDevice", self.device)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime; return its value, or None where it returns its status alone.

        Raises:
            OutOfMemory: the GPU's memory, or the host's that is pinned, is full.
            NetworkError: any other status than success.
        """
        status, *values = getattr(self.runtime, name)(*arguments)
        statuses = self.runtime.cudaError_t
        if status != statuses.cudaSuccess:
            self.forget_error()
        if status == statuses.cudaErrorMemoryAllocation:
            raise OutOfMemory(f"out of GPU memory ({name}): close other programs on the GPU, or use a smaller model")
        if status != statuses.cudaSuccess:
            _, text = self.runtime.cudaGetErrorString(status)
            raise NetworkError(f"CUDA says {text.decode()} ({name}, {status.name})")
        return values[0] if values else None

    def forget_error(self) -> None:
        """Clear the thread's last error, which CUDA keeps, and which TensorRT would take for one of its own calls'."""
        self.runtime.cudaGetLastError()

    def gpu(self) -> Gpu:
        """Return the GPU that engines run on."""
        properties = self.call("cudaGetDeviceProperties", self.device)
        driver = self.call("cudaDriverGetVersion")
        name = properties.name.partition(b"\0")[0].decode()
        return Gpu(name, f"{properties.major}.{properties.minor}", f"{driver // 1000}.{driver % 1000 // 10}")


class Stream(Closeable):
    """A CUDA stream: work that the GPU does in order."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        # Not the default stream, which waits for all others.
        self._stream: Any = cuda.call("cudaStreamCreateWithFlags", cuda.runtime.cudaStreamNonBlocking)

    @property
    def handle(self) -> int:
        """Its address, as TensorRT takes it."""
        return int(self._stream)

    def copy_in(self, device: int, host: int, nbytes: int) -> None:
        """Copy from host to device, once the stream gets to it."""
        self._copy(device, host, nbytes, self._cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def copy_out(self, host: int, device: int, nbytes: int) -> None:
        """Copy from device to host, once the stream gets to it."""
        self._copy(host, device, nbytes, self._cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def copy_within(self, target: int, source: int, nbytes: int) -> None:
        """Copy from one place on the device to another, once the stream gets to it."""
        self._copy(target, source, nbytes, self._cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice)

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        if nbytes:
            self._cuda.call("cudaMemcpyAsync", target, source, nbytes, kind, self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Any:
        """Capture what `enqueue` gives to the stream as a graph; nothing of it is done.

        Raises:
            NetworkError: something in it cannot be captured. The stream is as it was.
        """
        # Calls of other threads neither disturb this capture nor enter it.
        mode = self._cuda.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda.call("cudaStreamBeginCapture", self._stream, mode)
        try:
            enqueue()
        except BaseException:
            # Ends the capture whatever it says: its own status repeats the reason.
            _, graph = self._cuda.runtime.cudaStreamEndCapture(self._stream)
            self._cuda.forget_error()
            if graph is not None:
                self._cuda.call("cudaGraphDestroy", graph)
            raise
        return self._cuda.call("cudaStreamEndCapture", self._stream)

    def launch(self, executable: Any) -> None:
        """Launch an executable graph, once the stream gets to it."""
        self._cuda.call("cudaGraphLaunch", executable, self._stream)

    def wait(self) -> None:
        """Wait until everything is done."""
        self._cuda.call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Wait until everything is done, and free the stream."""
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                self._cuda.call("cudaStreamSynchronize", stream)
            finally:
                self._cuda.call("cudaStreamDestroy", stream)


class Buffer(Closeable):
    """Memory of one tensor on the device and, if it crosses, on the host, pinned so that copies run beside other work.

    device: the address on the device.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._size = self._host_size = 0
        self._host = self.device = 0

    def reserve(self, nbytes: int) -> None:
        """Make room; what it held is lost where it grows. No stream may be using it."""
        if self.device and nbytes <= self._size:
            return
        self.close()
        self._size = max(nbytes, 1)  # an empty tensor has an address too
        self.device = self._cuda.call("cudaMalloc", self._size)

    def view(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return the host's memory as an array; it is valid until the buffer grows or is closed."""
        count = int(np.prod(shape, dtype=np.int64))
        block = memoryview((ctypes.c_uint8 * self._host_size).from_address(self._host))
        view: NDArray[Any] = np.frombuffer(block, dtype, count).reshape(shape)
        return view

    def send(self, value: NDArray[Any], stream: Stream) -> None:
        """Copy an array to the device, once the stream gets to it."""
        self.reserve(value.nbytes)
        self._pin()
        self.view(value.shape, value.dtype)[...] = value
        stream.copy_in(self.device, self._host, value.nbytes)

    def fetch(self, nbytes: int, stream: Stream) -> None:
        """Copy from the device to where `view` shows it, once the stream gets to it."""
        self._pin()
        stream.copy_out(self._host, self.device, nbytes)

    def _pin(self) -> None:
        """Allocate the host's memory, as large as the device's. Only what crosses needs it."""
        if not self._host:
            self._host, self._host_size = self._cuda.call("cudaMallocHost", self._size), self._size

    def close(self) -> None:
        """Free both."""
        device, host = self.device, self._host
        self.device = self._host = self._size = self._host_size = 0
        if device:
            self._cuda.call("cudaFree", device)
        if host:
            self._cuda.call("cudaFreeHost", host)
