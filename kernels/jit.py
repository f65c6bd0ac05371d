"""Decorators that compile a kernel, typed so that strict type checking sees through them.

Every kernel is cached on disk: the first call of a new process then takes milliseconds, not seconds. Every kernel
releases the GIL, so that a server's other threads go on. None uses `fastmath=True`: reassociation would make sums
depend on the CPU's vector width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba

KernelT = TypeVar("KernelT", bound=Callable[..., Any])


def kernel(function: KernelT) -> KernelT:
    """Compile for one thread, with IEEE arithmetic as written."""
    return cast(KernelT, numba.njit(cache=True, nogil=True)(function))


def parallel_kernel(function: KernelT) -> KernelT:
    """Compile for threads over `prange`, with IEEE arithmetic as written."""
    return cast(KernelT, numba.njit(cache=True, nogil=True, parallel=True)(function))


def contracted_kernel(function: KernelT) -> KernelT:
    """Compile for threads over `prange`; a product that feeds a sum may become one fused multiply-add, rounded once.

    PyTorch's CPU kernels are compiled this way, so equality with them bit for bit needs it.
    """
    return cast(KernelT, numba.njit(cache=True, nogil=True, parallel=True, fastmath={"contract"})(function))


def contracted_function(function: KernelT) -> KernelT:
    """Compile as contracted_kernel does, for the calling thread alone."""
    return cast(KernelT, numba.njit(cache=True, nogil=True, fastmath={"contract"})(function))


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
