"""The processors that this process may use."""

import math
import operator
import os
from collections.abc import Callable
from pathlib import Path

from maskrt.runtime.errors import InputError

MAX_THREADS = 1024  # more than any machine has cores; a hundred thousand would hang in the engine
CGROUPS = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Return the number of cores that this process may use: by its affinity, and by the quota of its container."""
    return threads_by_quota() or _by_affinity()


def checked_threads(threads: int | None) -> int | None:
    """Return a number of threads for networks and kernels; None leaves the choice to each.

    Raises:
        InputError: it is no whole number from 1 to MAX_THREADS.
    """
    if threads is None:
        return None
    try:
        number = operator.index(threads)  # also NumPy's integers
    except TypeError as error:
        raise InputError(f"threads={threads!r}: give a whole number from 1 to {MAX_THREADS}, or None") from error
    if isinstance(threads, bool) or not 1 <= number <= MAX_THREADS:
        raise InputError(f"threads={threads}: give a whole number from 1 to {MAX_THREADS}, or None")
    return number


def threads_by_quota() -> int | None:
    """Return how many threads an engine should start where a container grants fewer cores than it would see.

    None where there is no such quota: the engine's own choice is right.
    """
    quota = cgroup_quota()
    seen = _by_affinity()
    return None if quota is None or quota >= seen else max(1, math.ceil(quota))


def _by_affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_quota(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the cores that control groups grant to this process, the least of all levels; None without a limit.

    Args:
        root: where the groups are mounted, of version 2 or 1.
        membership: the file that says in which groups the process is.

    Source: the kernel's documents of cgroup-v2 (cpu.max) and of the CFS bandwidth controller (cpu.cfs_quota_us).
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            quotas += _levels(root, group, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _levels(root / "cpu", group, _quota_v1) or _levels(root / controllers, group, _quota_v1)
    return min(quotas, default=None)


def _levels(root: Path, group: str, quota_of: Callable[[Path], float | None]) -> list[float]:
    """Return the quotas of a group and all above it. Inside a container the mount may begin at the group itself."""
    folder = (root / group.strip("/")) if group.strip("/") else root
    folders = [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]
    return [quota for quota in map(quota_of, dict.fromkeys((*folders, root))) if quota is not None]


def _quota_v2(folder: Path) -> float | None:
    try:
        limit, period = (folder / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or a form that no kernel writes
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        limit, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return None if limit < 0 else limit / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
