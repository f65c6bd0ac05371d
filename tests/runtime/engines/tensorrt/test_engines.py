"""Engines that are missing, stale, foreign, cut short or altered, and machines that lack something."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_files import FEEDS, build, change_record, run
from PIL import Image
from tensorrt_standin import install
from tensorrt_standin.behaviour import check_plan
from tiny_bundle import write_tiny_bundle

import maskrt.kernels.device  # noqa: F401 - Numba looks for CUDA's bindings before the stand-in's are there
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.doctor import examine
from maskrt.runtime.engine_build.builder import BuildSettings, EngineBuilder
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.tensorrt.store import EngineFiles
from maskrt.runtime.errors import BundleError, OutOfMemory, ProviderUnavailable

Maskrt = Callable[..., tuple[int, str, str]]


def cut(place: EngineFiles) -> None:
    place.engine.write_bytes(place.engine.read_bytes()[:-1])


def alter(place: EngineFiles) -> None:
    data = bytearray(place.engine.read_bytes())
    data[-5] ^= 1
    place.engine.write_bytes(data)


WRONG: dict[str, tuple[Callable[[EngineFiles], Any], str]] = {
    "other version": (
        lambda p: change_record(p, lambda r: r["target"].update(tensorrt="10.13.0.1")),
        r"engine built for TensorRT 10\.13\.0\.1 on NVIDIA L4 \(8\.9\), driver for CUDA 13\.0, found TensorRT 1",
    ),
    "other GPU": (
        lambda p: change_record(p, lambda r: r["target"].update(gpu="NVIDIA T4", compute_capability="7.5")),
        r"on NVIDIA T4 \(7\.5\), driver for CUDA 13\.0, found TensorRT .* on NVIDIA L4 \(8\.9\)",
    ),
    "other driver": (
        lambda p: change_record(p, lambda r: r["target"].update(driver="12.4")),
        r"driver for CUDA 12\.4, found .* driver for CUDA 13\.0",
    ),
    "other model": (lambda p: change_record(p, lambda r: r.update(model_sha256="0" * 64)), "from another model"),
    "cut short": (cut, "truncated"),
    "altered": (alter, "sha256 differs from its record's: altered or damaged"),
    "gone": (lambda p: p.engine.unlink(), "cannot be read"),
    "record altered": (lambda p: p.record.write_bytes(b"{}"), "is not a record of maskrt"),
    "open to others": (lambda p: p.engine.chmod(0o666), "is code, and others than its owner can change it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_engine_never_reaches_tensorrt(tensorrt_device: Any, bundle: Path, case: str) -> None:
    spoil, reason = WRONG[case]
    place = build(bundle)
    spoil(place)
    with pytest.raises(BundleError, match=rf"{reason}.*: run maskrt build {bundle} --engine tensorrt$"):
        run(bundle)
    assert tensorrt_device.deserialised == 0
    build(bundle)
    run(bundle)
    assert tensorrt_device.built == 2


def test_tensorrt_was_updated(monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, bundle: Path) -> None:
    build(bundle)
    now = sys.modules["tensorrt"].__version__
    install(monkeypatch, "11.4" if now.startswith("10") else "10.16", tensorrt_device)
    with pytest.raises(BundleError, match=f"engine built for TensorRT {now} on NVIDIA L4 .*: run maskrt build"):
        run(bundle)
    assert tensorrt_device.deserialised == 0


def test_no_engine_is_built_unasked(tensorrt_device: Any, bundle: Path, maskrt: Maskrt, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, _, told = maskrt("run", bundle, tmp_path / "a.png", "--out", tmp_path / "out", "--provider", "tensorrt")
    fix = f"has no TensorRT engine yet: run maskrt build {bundle} --engine tensorrt"
    assert (code, told) == (2, f"error: decoder.onnx {fix}\n")
    assert tensorrt_device.built == 0


def test_the_model_was_exported_again(tensorrt_device: Any, bundle: Path) -> None:
    build(bundle)
    write_tiny_bundle(bundle, fill=1.0)
    with pytest.raises(BundleError, match="from another model"):
        run(bundle)


def test_settings_reach_the_builder(tensorrt_device: Any, bundle: Path) -> None:
    plan = check_plan(build(bundle).engine)
    assert (plan.flags, plan.limits) == ([], {})  # float32 is kept as it is
    plan = check_plan(build(bundle, tf32=True, workspace_mb=100).engine)
    assert (plan.flags, plan.limits) == (["TF32"], {"WORKSPACE": 100_000_000})
    assert tensorrt_device.built == 2


def test_a_graph_that_tensorrt_does_not_take(tensorrt_device: Any, bundle: Path) -> None:
    tensorrt_device.unsupported = {"Resize"}
    with pytest.raises(
        BundleError, match=r"does not take encoder\.onnx \(Resize .*operator is not supported\): export"
    ):
        build(bundle, "encoder")
    (bundle / "segmenter.onnx").write_bytes(b"no model")
    with pytest.raises(BundleError, match="the bundle says"):
        build(bundle)


def test_ctrl_c_stops_a_build(tensorrt_device: Any, bundle: Path) -> None:
    def interrupt(phase: str, done: int, total: int) -> None:
        assert (phase, done, total) == ("Building engine", 1, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EngineBuilder(open_bundle(bundle), BuildSettings()).build("segmenter", interrupt)
    assert (tensorrt_device.built, list((bundle / "engines").glob("*/*"))) == (0, [])


def test_ctrl_c_keeps_what_is_built(
    monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, bundle: Path, maskrt: Maskrt
) -> None:
    def tell(self: Any, phase: str, done: int, total: int) -> None:
        if phase == "2 of 3, encoder: Building engine" and done == total:
            raise KeyboardInterrupt

    monkeypatch.setattr("maskrt.cli.progress.PhaseProgress.tell", tell)
    code, _, told = maskrt("build", bundle, "--engine", "tensorrt")
    assert (code, told) == (130, "interrupted: engines built so far are kept; the same command builds the rest\n")
    assert [file.name for file in (bundle / "engines").glob("*/*.engine")] == ["segmenter.engine"]


def test_memory_that_does_not_suffice(tensorrt_device: Any, bundle: Path) -> None:
    build(bundle)
    with open_session(bundle / "segmenter.onnx", "tensorrt") as session:
        tensorrt_device.memory_bytes = 100
        with pytest.raises(OutOfMemory, match=r"out of GPU memory .*: close other programs"):
            session.run(FEEDS)
        tensorrt_device.memory_bytes = 1 << 30
        tensorrt_device.refuse_contexts = True
        with pytest.raises(OutOfMemory, match=r"cannot create an execution context: out of GPU memory"):
            session.run(FEEDS)
        tensorrt_device.refuse_contexts = False
        session.run(FEEDS)


def test_a_machine_without_tensorrt(monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, bundle: Path) -> None:
    from tensorrt_standin.streams import cudaError_t

    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "tensorrt", None)
        with pytest.raises(ProviderUnavailable, match=r"TensorRT cannot be loaded .*pip install 'maskrt\[tensorrt\]'"):
            run(bundle)
        assert "TensorRT cannot be loaded" in examine(("tensorrt",)).providers["tensorrt"]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "cuda", None)
        patched.setitem(sys.modules, "cuda.bindings", None)
        with pytest.raises(ProviderUnavailable, match=r"CUDA cannot be loaded .*pip install 'maskrt\[tensorrt\]'"):
            run(bundle)
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["tensorrt"], "__version__", "10.9.0.34")
        with pytest.raises(ProviderUnavailable, match=r"TensorRT 10\.9\.0\.34: maskrt supports 10\.12 to 11"):
            run(bundle)
    assert examine(("tensorrt",)).providers["tensorrt"].endswith("on NVIDIA L4 (8.9), driver for CUDA 13.0")
    tensorrt_device.devices = 0
    with pytest.raises(ProviderUnavailable, match="CUDA finds no GPU"):
        run(bundle)
    tensorrt_device.status = cudaError_t.cudaErrorInsufficientDriver
    with pytest.raises(ProviderUnavailable, match=r"cudaErrorInsufficientDriver.*nvidia-smi"):
        run(bundle)
