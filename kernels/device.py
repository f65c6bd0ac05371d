"""Tools of every CUDA kernel: they compile and launch it, and move arrays to the device and back.

A kernel walks over its tasks with a stride of the whole grid, so any launch size gives the same answer. By default a
product that feeds a sum is fused with it (libnvvm and nvJitLink contract, and numba-cuda has no option against it).
`product` and `fma` say which one is meant wherever the definition demands exact bits.

With NUMBA_ENABLE_CUDASIM=1 set before Numba is imported, the same kernels run in Numba's simulator, which starts a
Python thread for each of the device's.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import numpy as np
from numba import cuda
from numba.core import config
from numpy.typing import DTypeLike, NDArray

KernelT = TypeVar("KernelT", bound=Callable[..., Any])

SIMULATED = bool(config.ENABLE_CUDASIM)
# Enough blocks to fill any device. The simulator gets few threads, so that each of them strides.
THREADS, MAX_BLOCKS = (3, 2) if SIMULATED else (128, 4096)

# A small picture needs few blocks, and Numba would warn the user at each launch.
warnings.filterwarnings("ignore", "Grid size .* will likely result in GPU under-utilization")


def require_device() -> None:
    """Make sure that kernels can run.

    Raises:
        ModuleNotFoundError: numba-cuda is not installed.
        RuntimeError: there is no NVIDIA GPU, its driver cannot be used, or the compiler is missing.
    """
    if find_spec("numba_cuda") is None:
        raise ModuleNotFoundError("CUDA kernels need numba-cuda: pip install 'maskrt[gpu]'", name="numba_cuda")
    if not cuda.is_available():
        problem = cuda.cuda_error()
        if problem is not None:
            raise RuntimeError(f"CUDA kernels need an NVIDIA GPU and its driver: {' '.join(problem.split())}")
        raise RuntimeError("CUDA kernels need libnvvm, which compiles them: pip install 'maskrt[gpu]'")


def kernel(python: KernelT) -> KernelT:
    """Compile a kernel, which `launch` starts and which returns nothing."""
    return cast(KernelT, cuda.jit(python))


def function(python: KernelT) -> KernelT:
    """Compile a function that kernels call.

    In the simulator it must not name `cuda` unless it stands in its kernel's module.
    """
    return cast(KernelT, cuda.jit(device=True)(python))


if SIMULATED:

    @function
    def product(a: np.float32, b: np.float32) -> np.float32:
        return a * b

    @function
    def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
        # Computed as in kernels.resample.reference, since the simulator's own fma rounds the product.
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))

else:
    from numba.cuda import libdevice

    @function
    def product(a: np.float32, b: np.float32) -> np.float32:
        """Return the product, rounded to float32 whatever follows it."""
        rounded: np.float32 = libdevice.fmul_rn(a, b)
        return rounded

    @function
    def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
        """Return a * b + c, rounded once."""
        rounded: np.float32 = cuda.fma(a, b, c)
        return rounded


def launch(kernel: Callable[..., Any], tasks: int, *arguments: Any) -> None:
    """Start a kernel on the default stream for a number of tasks; 0 starts nothing."""
    if tasks > 0:
        cast(Any, kernel)[min(-(-tasks // THREADS), MAX_BLOCKS), THREADS](*arguments)


def to_device(array: Any) -> Any:
    """Return an array on the device: a NumPy array is copied in C order, a Numba array is returned as it is.

    `numba.cuda.as_cuda_array` makes a Numba array of one that another library has on the device.
    """
    return cuda.to_device(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array


def full(shape: int | tuple[int, ...], value: float, dtype: DTypeLike) -> Any:
    """Return a new array on the device, filled with one value."""
    return cuda.to_device(np.full(shape, value, dtype))


def empty(shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
    """Return a new array on the device; its values are undefined."""
    return cuda.device_array(shape, dtype)


def to_host(array: Any, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Copy an array to main memory, into `out` if it is given, after all kernels before it are done."""
    return cast(NDArray[Any], array.copy_to_host(out))


@contextmanager
def written(out: Any) -> Iterator[Any]:
    """Yield an array on the device for a kernel to overwrite wholly; after the block `out` has its values.

    Where `out` is on the device already, it is that array.
    """
    if not isinstance(out, np.ndarray):
        yield out
        return
    array = empty(out.shape, out.dtype)
    yield array
    to_host(array, out)
