"""The ways a kernel is compiled here; typed, so that strict type checking sees through the decorator.

Every kernel is cached on disk (the first call of a new process then takes milliseconds, not seconds), and releases
the GIL so that a server's other threads go on. None uses `fastmath=True`: reassociation would make sums depend on the
CPU's vector width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba

KernelT = TypeVar("KernelT", bound=Callable[..., Any])


def kernel(function: KernelT) -> KernelT:
    """One thread, IEEE arithmetic as written."""
    return cast(KernelT, numba.njit(cache=True, nogil=True)(function))


def parallel_kernel(function: KernelT) -> KernelT:
    """Threads over `prange`, IEEE arithmetic as written."""
    return cast(KernelT, numba.njit(cache=True, nogil=True, parallel=True)(function))


def contracted_kernel(function: KernelT) -> KernelT:
    """Threads over `prange`; a product feeding a sum may become one fused multiply-add, rounded once.

    PyTorch's CPU kernels are compiled this way, so this is what it takes to be equal to them bit for bit.
    """
    return cast(KernelT, numba.njit(cache=True, nogil=True, parallel=True, fastmath={"contract"})(function))


def contracted_function(function: KernelT) -> KernelT:
    """As contracted_kernel, in the calling thread."""
    return cast(KernelT, numba.njit(cache=True, nogil=True, fastmath={"contract"})(function))


@contextmanager
def thread_limit(threads: int | None) -> Iterator[None]:
    """Inside the block, kernels that the calling thread starts share their work among at most this many threads.

    None changes nothing.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads or before, before))
    try:
        yield
    finally:
        numba.set_num_threads(before)
