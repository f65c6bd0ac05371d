"""What doctor says, here and on a machine where things are missing."""

import importlib.util
import json
from pathlib import Path

import pytest

from maskrt.runtime import doctor


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> object:
    """without("torch", ...) makes modules look absent."""

    def hide(*names: str) -> None:
        found, imported = importlib.util.find_spec, importlib.import_module
        monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name in names else found(name))

        def load(name: str) -> object:
            if name in names:
                raise ImportError(f"No module named '{name}'")
            return imported(name)

        monkeypatch.setattr(doctor.importlib, "import_module", load)

    return hide


def test_this_machine_can_run() -> None:
    report = doctor.examine()
    assert report.can_run, report.problems
    assert "CPUExecutionProvider" in report.providers
    assert report.commands["run"] == "ready"
    assert report.versions["numpy"]
    assert 1 <= report.cpus_usable <= report.cpus_online
    assert report.numba_threading_layers
    written = json.loads(doctor.report_json(report))
    assert set(written) == set(doctor.Report.__struct_fields__)
    assert "maskrt run" in doctor.report_text(report)


def test_missing_extras_are_named_and_do_not_stop_the_runtime(without) -> None:
    without("torch", "onnx", "av")
    report = doctor.examine()
    assert report.can_run
    assert report.commands["export"] == "missing torch, onnx: pip install 'maskrt[cpu,export]'"
    assert report.commands["run VIDEO"] == "missing av: pip install 'maskrt[cpu,video]'"


def test_without_an_engine_nothing_runs(without) -> None:
    without("onnxruntime")
    report = doctor.examine()
    assert report.problems == ["missing onnxruntime: pip install 'maskrt[cpu]'"]
    assert report.providers == []
    assert "problem: missing onnxruntime" in doctor.report_text(report)


def test_a_broken_engine(monkeypatch: pytest.MonkeyPatch, without) -> None:
    found = importlib.util.find_spec
    without("onnxruntime")
    monkeypatch.setattr(doctor.importlib.util, "find_spec", found)
    (problem,) = doctor.examine().problems
    assert "cannot be imported" in problem


def test_two_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0")
    (problem,) = doctor.examine().problems
    assert "overwrite each other" in problem


def test_the_numba_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new" / "cache"))
    assert doctor.examine().numba_cache == str(tmp_path / "new" / "cache")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    report = doctor.examine()
    assert not report.can_run
    assert "NUMBA_CACHE_DIR" in report.problems[0]


def test_a_machine_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def without_proc(self: Path, *args: str, **options: str) -> str:
        if str(self).startswith("/proc"):
            raise FileNotFoundError
        return read(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", without_proc)
    report = doctor.examine()
    assert report.cpu_features == []
    assert report.memory_total_mb is None
    assert "unknown" in doctor.report_text(report)


def test_every_command_is_known() -> None:
    from maskrt.cli.main import COMMANDS

    assert set(COMMANDS) - {"doctor"} <= set(doctor.NEEDS)
