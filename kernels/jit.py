"""Decorators that compile a kernel, typed so that strict type checking sees through them.

Every kernel is cached on disk: the first call of a new process then takes milliseconds, not seconds. Every kernel
releases the GIL, so that a server's other threads go on. None uses `fastmath=True`: reassociation would make sums
depend on the CPU's vector width.
"""

import atexit
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba

KernelT = TypeVar("KernelT", bound=Callable[..., Any])


def kernel(function: KernelT) -> KernelT:
    """Compile for one thread, with IEEE arithmetic as written."""
    return _compiled(function)


def parallel_kernel(function: KernelT) -> KernelT:
    """Compile for threads over `prange`, with IEEE arithmetic as written."""
    return _compiled(function, parallel=True)


def contracted_kernel(function: KernelT) -> KernelT:
    """Compile for threads over `prange`; a product that feeds a sum may become one fused multiply-add, rounded once.

    PyTorch's CPU kernels are compiled this way, so equality with them bit for bit needs it.
    """
    return _compiled(function, parallel=True, fastmath={"contract"})


def contracted_function(function: KernelT) -> KernelT:
    """Compile as contracted_kernel does, for the calling thread alone."""
    return _compiled(function, fastmath={"contract"})


def _compiled(function: KernelT, **options: Any) -> KernelT:
    try:
        return cast(KernelT, numba.njit(cache=True, nogil=True, **options)(function))
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        _cache_for_this_process()
        return cast(KernelT, numba.njit(cache=True, nogil=True, **options)(function))


def _cache_for_this_process() -> None:
    """Keep compiled kernels in a folder of this process, where the installation and the user's home are read-only.

    A cache holds code, so nobody else may write to it: mkdtemp makes a folder that only this user can open.
    """
    try:
        folder = tempfile.mkdtemp(prefix="maskrt-kernels-")
    except OSError as error:
        raise RuntimeError("no folder is writable: set NUMBA_CACHE_DIR to one that is") from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    numba.config.CACHE_DIR = folder
    warnings.warn(
        "compiled kernels can be kept neither beside maskrt nor in the home folder, every start compiles them again: "
        "set NUMBA_CACHE_DIR to a writable folder",
        RuntimeWarning,
        stacklevel=2,
    )


@contextmanager
def thread_limit(threads: int | None) -> Iterator[None]:
    """Let kernels that the calling thread starts use at most this many threads inside the block.

    None changes nothing.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads or before, before))
    try:
        yield
    finally:
        numba.set_num_threads(before)
