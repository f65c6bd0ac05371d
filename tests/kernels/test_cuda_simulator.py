"""The CUDA kernels without a GPU: in Numba's simulator, and through the compiler."""

import os
import re
import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("test_cuda.py")


def test_in_the_simulator() -> None:
    """In a process of its own: Numba decides for or against the simulator when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", str(CASES)]
    done = subprocess.run(
        command,
        cwd=CASES.parents[2],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, summary = done.stdout.strip().splitlines()
    assert re.fullmatch(r"\d{2,} passed in .*", summary), summary  # none skipped, none deselected
