"""The CUDA kernels where no GPU is: in Numba's simulator, and what asking for them says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = [Path(__file__).with_name(name) for name in ("test_cuda.py", "test_cuda_patches.py")]


# In the simulator these take from seconds to minutes, by how its Python threads happen to take turns.
LONG = "low_res_masks or whole_pipeline"


def run_cases(which: str, summary: str) -> None:
    """In a process of its own: Numba decides for or against the simulator when it is imported."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--no-header",
        *map(str, CASES),
        "-k",
        which,
    ]
    done = subprocess.run(
        command,
        cwd=CASES[0].parents[2],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.strip().splitlines()
    assert re.fullmatch(summary, last), last  # none skipped


def test_in_the_simulator() -> None:
    run_cases(f"not ({LONG})", r"\d{2,} passed, \d deselected in .*")


@pytest.mark.slow
def test_the_long_ones_in_the_simulator() -> None:
    run_cases(LONG, r"\d passed, \d{2,} deselected in .*")


def test_asking_for_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba import cuda

    from maskrt.kernels import device

    monkeypatch.setattr(cuda, "is_available", lambda: False)
    monkeypatch.setattr(cuda, "cuda_error", lambda: "\nno driver\nhere\n")
    with pytest.raises(RuntimeError, match=r"need an NVIDIA GPU and its driver: no driver here$"):
        device.require_device()
    monkeypatch.setattr(cuda, "cuda_error", lambda: None)
    with pytest.raises(RuntimeError, match=r"need libnvvm.*pip install 'maskrt\[gpu\]'"):
        device.require_device()
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'maskrt\[gpu\]'") as caught:
        device.require_device()
    assert caught.value.name == "numba_cuda"


def test_nobody_imports_it_unasked() -> None:
    modules = "maskrt.kernels.sets, maskrt.runtime.pipelines.soss.pipeline"
    code = f"import sys, {modules}; print([m for m in sys.modules if m == 'numba.cuda'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
