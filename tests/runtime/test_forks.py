"""Processes that are forked after a frame say what to do; those forked before it work."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_two_stage import write_tiny_two_stage

from maskrt.runtime import errors

CODE = """
import multiprocessing, sys, numpy as np, maskrt
bundle, way, shared = sys.argv[1], sys.argv[2], []
def one(i):
    if shared:
        return int(shared[0](np.full((48, 64, 3), i, np.uint8)).mask.sum())
    with maskrt.open_pipeline(bundle) as pipeline:
        return int(pipeline(np.full((48, 64, 3), i, np.uint8)).mask.sum())
if __name__ == "__main__":
    if way == "after":
        one(0)
    if way == "shared":
        shared.append(maskrt.open_pipeline(bundle))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(one, range(3)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("way", ["before", "after", "shared"])
def test_a_pool_that_forks_answers_or_says_spawn(tmp_path: Path, way: str) -> None:
    bundle = write_tiny_two_stage(tmp_path / "bundle")
    line = [sys.executable, "-c", CODE, str(bundle), way]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    if way == "before":
        assert done.returncode == 0, done.stderr
    else:
        assert "MaskrtError: this process was forked" in done.stderr
        assert "spawn" in done.stderr


def test_every_error_crosses_processes() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 9
    for kind in kinds:
        again = pickle.loads(pickle.dumps(kind("a reason")))
        assert type(again) is kind
        assert str(again) == "a reason"
