"""Refuses work in a process that was forked when threads were already running.

The threads of kernels and networks do not exist in the child, which would wait for them for ever, or be killed.
"""

import os
import sys

from maskrt.runtime.errors import MaskrtError

_threads_lost = False


def require_threads(owner: int | None = None) -> None:
    """Check that the threads that a kernel or a network needs exist in this process.

    Args:
        owner: the process that loaded the network, where one is about to run.

    Raises:
        MaskrtError: this process is a fork of one that had started them.
    """
    if _threads_lost or (owner is not None and owner != os.getpid()):
        raise MaskrtError(
            "this process was forked from one in which maskrt had already worked, and its threads do not exist here: "
            "start processes with multiprocessing.get_context('spawn'), or fork before the first frame"
        )


def _after_fork() -> None:
    global _threads_lost
    numba = sys.modules.get("numba")
    if numba is None:
        return
    try:
        _threads_lost = numba.threading_layer() != "tbb"  # the one layer that starts again in a child
    except ValueError:  # no kernel has run: the child starts threads of its own
        return


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
