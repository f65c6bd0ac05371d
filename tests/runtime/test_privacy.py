"""No dependency reports to its makers, whatever the environment says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_two_stage import write_tiny_two_stage

from maskrt.runtime import privacy

SILENT = {"CI", "ORT_DISABLE_TELEMETRY", "DO_NOT_TRACK"}  # what could hide a report


def fresh(home: Path, **more: str) -> dict[str, str]:
    """An environment with a new home, without what switches telemetry off by itself."""
    kept = {name: value for name, value in os.environ.items() if name not in SILENT and not name.startswith("XDG_")}
    return kept | {"HOME": str(home), "NUMBA_CACHE_DIR": str(home / "numba")} | more


@pytest.mark.parametrize("before", [None, "", "0"])
def test_onnxruntime_is_told_before_it_is_imported(tmp_path: Path, before: str | None) -> None:
    code = "import maskrt, onnxruntime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    more = {} if before is None else {"ORT_DISABLE_TELEMETRY": before}
    env = fresh(tmp_path, **more)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert done.stderr == ""


def test_one_that_was_imported_before_is_named() -> None:
    code = (
        "import sys, types; sys.modules['onnxruntime'] = types.ModuleType('onnxruntime')\n"
        "import maskrt; from maskrt.runtime import privacy; print(privacy.states().get('onnxruntime'))"
    )
    env = {name: value for name, value in os.environ.items() if name not in SILENT}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "import maskrt first, or set ORT_DISABLE_TELEMETRY=1" in done.stderr


def test_every_installed_reporter_is_off() -> None:
    found = privacy.states()
    assert "onnxruntime" in found
    assert all(state.startswith("off: ") for state in found.values())


@pytest.mark.parametrize("command", ["run", "verify", "doctor"])
def test_a_command_leaves_nothing_at_home_and_asks_no_network(tmp_path: Path, command: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    Image.new("RGB", (64, 48), (90, 120, 30)).save(tmp_path / "a.png")
    bundle = write_tiny_two_stage(tmp_path / "bundle")
    arguments = {
        "run": ["run", str(bundle), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")],
        "verify": ["verify", str(bundle)],
        "doctor": ["doctor"],
    }[command]
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(trace)] if shutil.which("strace") else []
    line = [*strace, sys.executable, "-m", "maskrt.cli", *arguments]
    done = subprocess.run(line, env=fresh(home), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left = [path for path in home.rglob("*") if path.is_file() and home / "numba" not in path.parents]
    assert left == []
    if strace:
        outside = re.compile(r"AF_INET6?")
        assert [text for text in trace.read_text().splitlines() if outside.search(text)] == []
