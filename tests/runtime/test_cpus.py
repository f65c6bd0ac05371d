"""The cores that affinity and control groups grant."""

from pathlib import Path

import numpy as np
import pytest

from maskrt.runtime.cpus import cgroup_quota, checked_threads, usable_cpus
from maskrt.runtime.errors import InputError


def groups(root: Path, files: dict[str, str], membership: str) -> tuple[Path, Path]:
    """Write a tree of control groups, and the file that says in which of them a process is."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "membership").write_text(membership)
    return root, root / "membership"


@pytest.mark.parametrize(
    ("files", "membership", "quota"),
    [
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
        ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", 4.0),  # the parent's holds too
        ({"a/cpu.max": "100000 100000", "a/b/cpu.max": "300000 100000"}, "0::/a/b\n", 1.0),
        ({"cpu.max": "200000 100000"}, "0::/not/visible/here\n", 2.0),  # a container sees its own group as the root
        ({"cpu/d/cpu.cfs_quota_us": "50000", "cpu/d/cpu.cfs_period_us": "100000"}, "4:cpu:/d\n", 0.5),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/\n", None),
        ({"cpu.max": "nonsense"}, "0::/\n", None),
        ({}, "", None),
    ],
)
def test_the_least_quota_of_all_levels_holds(
    tmp_path: Path, files: dict[str, str], membership: str, quota: float | None
) -> None:
    assert cgroup_quota(*groups(tmp_path, files, membership)) == quota


def test_a_quota_limits_the_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrt.runtime.cpus._by_affinity", lambda: 8)
    monkeypatch.setattr("maskrt.runtime.cpus.cgroup_quota", lambda: 1.5)
    assert usable_cpus() == 2
    monkeypatch.setattr("maskrt.runtime.cpus.cgroup_quota", lambda: 16.0)
    assert usable_cpus() == 8


def test_threads_are_any_whole_number_that_a_machine_could_have() -> None:
    assert checked_threads(None) is None
    assert checked_threads(np.int64(3)) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -1, 1025, 100000, 2.0, True, "2"])
def test_other_numbers_of_threads_are_refused(threads: object) -> None:
    with pytest.raises(InputError, match="from 1 to 1024"):
        checked_threads(threads)  # type: ignore[arg-type]
