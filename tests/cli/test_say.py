"""Printing: names cannot forge lines, no stream's encoding ends a command, and a closed pipe does not stop the work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_two_stage import write_tiny_two_stage


def maskrt(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    line = [sys.executable, "-m", "maskrt.cli", *arguments]
    return subprocess.run(line, env=os.environ | env, capture_output=True, text=True)


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(write_tiny_two_stage(tmp_path / "bundle"))


def test_a_name_forges_no_line(tmp_path: Path, bundle: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a\x1b[2J\nfailed: b.png").write_bytes(b"no picture")
    done = maskrt("run", bundle, str(folder), "--out", str(tmp_path / "out"))
    assert done.returncode == 3
    assert "\x1b" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("failed")] == [
        line for line in done.stderr.splitlines() if line.startswith("failed: a\\x1b[2J\\nfailed: b")
    ]


def test_letters_that_stdout_lacks_are_escaped(tmp_path: Path, bundle: str) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    done = maskrt("run", bundle, str(tmp_path / "a.png"), "--out", str(tmp_path / "Übung"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\xdcbung" in done.stdout
    assert (tmp_path / "Übung" / "mask" / "a.png").is_file()


def test_a_reader_that_goes_does_not_stop_the_work(tmp_path: Path, bundle: str) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    line = f"{sys.executable} -m maskrt.cli run {bundle} {tmp_path / 'a.png'} --out {tmp_path / 'out'} | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_settings_of_a_bundle_are_listed_a_line_each(tmp_path: Path, bundle: str) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    done = maskrt("run", bundle, str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--set", "nonsense=1")
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if line.startswith("  ")]) >= 3
