"""Stands in for `tensorrt` and `cuda.bindings.runtime` where neither can be installed.

The names, enum values and signatures are those of the real bindings, from tests/data; behind them ONNX Runtime computes
on the CPU. It shows that maskrt calls TensorRT as it wants to be called, not that TensorRT then answers as expected:
for that the same tests run on a GPU, under the marker `gpu`.
"""

import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tensorrt_standin.behaviour import behaviours
from tensorrt_standin.cuda import Device
from tensorrt_standin.table import module_from


def install(monkeypatch: pytest.MonkeyPatch, version: str, device: Device) -> Any:
    """Put both modules where `import` finds them; returns `tensorrt`."""
    table = json.loads((Path(__file__).parents[2] / f"data/tensorrt_{version}.json").read_text())
    found: dict[str, type] = {}
    module = module_from("tensorrt", table, found)
    found |= behaviours(module, device)
    module.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    runtime = device.module()
    packages: dict[str, Any] = {name: types.ModuleType(name) for name in ("cuda", "cuda.bindings")}
    packages["cuda"].bindings, packages["cuda.bindings"].runtime = packages["cuda.bindings"], runtime
    for name, each in {"tensorrt": module, **packages, "cuda.bindings.runtime": runtime}.items():
        monkeypatch.setitem(sys.modules, name, each)
    return module
