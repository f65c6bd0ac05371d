"""One `maskrt annotate` at a time in a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from maskrt.runtime.annotate.lock import only_one
from maskrt.runtime.annotate.store import Store
from maskrt.runtime.errors import InputError, MaskrtError

pytest.importorskip("fcntl")

HOLDER = """
import os, sys
from pathlib import Path
from maskrt.runtime.annotate.lock import only_one
with only_one(Path(sys.argv[1])):
    print("has it", flush=True)
    sys.stdin.readline()
    os._exit(9)
"""


def test_a_second_one_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "has it\n"
        (tmp_path / "link").symlink_to(out)
        for name in (out, tmp_path / "link", out / ".." / "out"):
            with (
                pytest.raises(InputError, match=r"another maskrt annotate works in .*: end it with Ctrl-C"),
                only_one(name),
            ):
                pass
        with only_one(tmp_path / "elsewhere"):
            pass
        first.communicate("die\n", timeout=60)
    assert first.returncode == 9
    with only_one(out), pytest.raises(InputError, match="works in"), only_one(out):
        pass
    with only_one(out):
        assert list(out.iterdir()) == []


def test_folders_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="is a file"), only_one(out):
            pass
    with pytest.raises(MaskrtError, match="cannot write"), only_one(tmp_path / ("a" * 300)):
        pass


def test_results_of_a_run_are_not_mixed_with_objects(tmp_path: Path) -> None:
    Store(tmp_path, ["a"])
    (tmp_path / "results.jsonl").touch()
    with pytest.raises(InputError, match="holds results of maskrt run"):
        Store(tmp_path, ["a"])
