"""The words of doctor, here and on a machine where things are missing."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from maskrt.runtime import doctor
from maskrt.runtime.engines.providers import PROVIDERS


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> object:
    """without("torch", ...) makes modules look absent."""

    def hide(*names: str) -> None:
        found, imported = importlib.util.find_spec, importlib.import_module
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else found(name))

        def load(name: str) -> object:
            if name in names:
                raise ImportError(f"No module named '{name}'")
            return imported(name)

        monkeypatch.setattr(importlib, "import_module", load)

    return hide


def test_this_machine_can_run() -> None:
    report = doctor.examine()
    assert report.can_run, report.problems
    assert report.providers["cpu"] == doctor.WORKS
    assert list(report.providers) == list(PROVIDERS)
    assert report.commands["run"] == "ready"
    assert report.versions["numpy"]
    assert 1 <= report.cpus_usable <= report.cpus_online
    assert report.numba_threading_layers
    written = json.loads(doctor.report_json(report))
    assert set(written) == set(doctor.MachineReport.__struct_fields__)
    assert "maskrt run" in doctor.report_text(report)


def test_missing_extras_are_named_and_do_not_stop_the_runtime(without) -> None:
    without("torch", "onnx", "av")
    report = doctor.examine(providers=())
    assert report.can_run
    assert report.commands["export"] == "missing torch, onnx: pip install 'maskrt[cpu,export]'"
    assert report.commands["run VIDEO"] == "missing av: pip install 'maskrt[cpu,video]'"


def test_without_an_engine_nothing_runs(without, monkeypatch: pytest.MonkeyPatch) -> None:
    without("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = doctor.examine()
    assert report.problems == ["missing onnxruntime: pip install 'maskrt[cpu]'"]
    for provider, extra in (("cpu", "cpu"), ("cuda", "gpu"), ("ort-tensorrt", "ort-trt")):
        assert report.providers[provider].startswith("import of onnxruntime halted; ")
        assert report.providers[provider].endswith(f": pip install 'maskrt[{extra}]'")
    assert "problem: missing onnxruntime" in doctor.report_text(report)


def test_a_broken_engine(monkeypatch: pytest.MonkeyPatch, without) -> None:
    found = importlib.util.find_spec
    without("onnxruntime")
    monkeypatch.setattr(importlib.util, "find_spec", found)
    (problem,) = doctor.examine(providers=()).problems
    assert "cannot be imported" in problem


def test_two_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0")
    (problem,) = doctor.examine(providers=()).problems
    assert "overwrite each other" in problem


def test_the_numba_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new" / "cache"))
    assert doctor.examine(providers=()).numba_cache == str(tmp_path / "new" / "cache")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    report = doctor.examine(providers=())
    assert not report.can_run
    assert "NUMBA_CACHE_DIR" in report.problems[0]


def test_a_machine_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def without_proc(self: Path, *args: str, **options: str) -> str:
        if str(self).startswith("/proc"):
            raise FileNotFoundError
        return read(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", without_proc)
    report = doctor.examine(providers=())
    assert report.cpu_features == []
    assert report.memory_total_mb is None
    assert "unknown" in doctor.report_text(report)


def test_what_providers_are_tried_on() -> None:
    onnx = pytest.importorskip("onnx", reason="needs maskrt[export]")
    model = onnx.load_from_string(doctor.PROBE)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Identity"]


def test_a_provider_that_does_not_work_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("has CUDA")
    monkeypatch.setitem(sys.modules, "openvino", None)
    report = doctor.examine()
    assert report.can_run
    assert report.providers["cuda"].endswith("install maskrt[gpu] in place of maskrt[cpu], or use --provider cpu")
    assert report.providers["openvino"] == "openvino requested: install maskrt[openvino]"
    lines = doctor.report_text(report).splitlines()
    assert "--provider cpu            works" in lines
    assert sum(line.startswith("--provider ") for line in lines) == len(PROVIDERS)


def test_every_command_is_known() -> None:
    from maskrt.cli.main import COMMANDS

    assert set(COMMANDS) - {"doctor"} <= set(doctor.NEEDS)


def test_cuda_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise RuntimeError("CUDA kernels need an NVIDIA GPU")

    for require, expected in ((absent, "CUDA kernels need an NVIDIA GPU"), (lambda: None, doctor.WORKS)):
        monkeypatch.setattr("maskrt.kernels.device.require_device", require)
        report = doctor.examine(())
        assert report.cuda_kernels == expected
        assert f"CUDA kernels              {expected}" in doctor.report_text(report)
