"""What every CUDA kernel needs: how it is compiled and launched, and how arrays get to the device and back.

A kernel walks over its tasks with a stride of the whole grid, so any launch size gives the same answer. A product that
feeds a sum would be fused with it by default (libnvvm and nvJitLink contract, and numba-cuda has no option against
it): `product` and `fma` say which one is meant wherever the definition demands bits.

With NUMBA_ENABLE_CUDASIM=1 set before Numba is imported, the same kernels run in Numba's simulator, a Python thread
for each of the device's.
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
# Blocks enough to fill any device; in the simulator few threads, so that each of them strides.
THREADS, MAX_BLOCKS = (3, 2) if SIMULATED else (128, 4096)

# A small picture needs few blocks, and Numba would tell the user of each launch.
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
    """Started by `launch`; returns nothing."""
    return cast(KernelT, cuda.jit(python))


def function(python: KernelT) -> KernelT:
    """Called by kernels; in the simulator it must not name `cuda` unless it stands in its kernel's module."""
    return cast(KernelT, cuda.jit(device=True)(python))


if SIMULATED:

    @function
    def product(a: np.float32, b: np.float32) -> np.float32:
        return a * b

    @function
    def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
        # As kernels.resample.reference: the simulator's own fma rounds the product.
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))

else:
    from numba.cuda import libdevice

    @function
    def product(a: np.float32, b: np.float32) -> np.float32:
        """The product, rounded to float32 whatever follows it."""
        rounded: np.float32 = libdevice.fmul_rn(a, b)
        return rounded

    @function
    def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
        """a * b + c, rounded once."""
        rounded: np.float32 = cuda.fma(a, b, c)
        return rounded


def launch(kernel: Callable[..., Any], tasks: int, *arguments: Any) -> None:
    """Start a kernel on the default stream for a number of tasks; 0 starts nothing."""
    if tasks > 0:
        cast(Any, kernel)[min(-(-tasks // THREADS), MAX_BLOCKS), THREADS](*arguments)


def to_device(array: Any) -> Any:
    """An array on the device: Numba's as it is, a NumPy array copied, in C order.

    `numba.cuda.as_cuda_array` makes Numba's of an array that another library has on the device.
    """
    return cuda.to_device(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array


def full(shape: int | tuple[int, ...], value: float, dtype: DTypeLike) -> Any:
    """A new array on the device, all of one value."""
    return cuda.to_device(np.full(shape, value, dtype))


def empty(shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
    """A new array on the device, its values undefined."""
    return cuda.device_array(shape, dtype)


def to_host(array: Any, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """A copy in main memory, in `out` if it is given, after all kernels before it."""
    return cast(NDArray[Any], array.copy_to_host(out))


@contextmanager
def written(out: Any) -> Iterator[Any]:
    """An array on the device for a kernel to overwrite wholly; after the block `out` has its values.

    `out` on the device already is the array itself.
    """
    if not isinstance(out, np.ndarray):
        yield out
        return
    array = empty(out.shape, out.dtype)
    yield array
    to_host(array, out)
