"""The engine's edge: providers, files that are no models, outputs that are no numbers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import INPUT_HW, write_tiny_bundle

from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import BundleError, InputError, NetworkError, ProviderUnavailable
from maskrt.runtime.kinds.open import open_pipeline

ENGINES = ["cpu", "openvino"]
IMAGE = np.zeros((1, 3, *INPUT_HW), np.float32)


@pytest.mark.parametrize("provider", ENGINES)
def test_names_shapes_and_a_run(tiny_bundle: Path, provider: str) -> None:
    with open_session(tiny_bundle / "segmenter.onnx", provider, threads=1) as session:
        assert session.inputs == {"image": ("tensor(float)", (None, 3, *INPUT_HW))}
        assert session.run({"image": IMAGE})["logits"].shape == (1, 2, *INPUT_HW)
    with open_session(tiny_bundle / "encoder.onnx", provider) as session:
        assert session.inputs == {"image": ("tensor(uint8)", (None, None, None, 3))}


@pytest.mark.parametrize("provider", ENGINES)
@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_errors(tmp_path: Path, fill: float, provider: str) -> None:
    write_tiny_bundle(tmp_path, fill)
    with (
        open_session(tmp_path / "segmenter.onnx", provider) as session,
        pytest.raises(NetworkError, match=r"segmenter\.onnx returned NaN or infinity in logits"),
    ):
        session.run({"image": IMAGE})


def test_a_nan_reaches_the_caller_of_the_pipeline(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, np.nan)
    with open_pipeline(tmp_path) as pipeline, pytest.raises(NetworkError, match="NaN"):
        pipeline(np.zeros((20, 30, 3), np.uint8))


@pytest.mark.parametrize("provider", ENGINES)
@pytest.mark.parametrize("feeds", [{"image": IMAGE[:, :, :5]}, {}, {"image": IMAGE, "other": IMAGE}])
def test_wrong_feeds_are_network_errors(tiny_bundle: Path, provider: str, feeds: dict[str, np.ndarray]) -> None:
    with open_session(tiny_bundle / "segmenter.onnx", provider) as session:
        session.run({"image": IMAGE})  # an engine must not go on with what it was fed before
        with pytest.raises(NetworkError, match=r"segmenter\.onnx failed"):
            session.run(feeds)


def test_engines_agree(tiny_bundle: Path, rng: np.random.Generator) -> None:
    """The whole pipeline, so that the sessions are called by several threads with changing sizes."""
    answers = {}
    frames = [rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8) for size_hw in ((60, 80), (33, 90))]
    for provider in ENGINES:
        with open_pipeline(tiny_bundle, provider, threads=2) as pipeline:
            answers[provider] = [pipeline(rgb) for rgb in frames]
    for ours, theirs in zip(*answers.values(), strict=True):
        assert len(ours.segments) > 3
        assert ours.segments.rles == theirs.segments.rles
        assert (ours.label == theirs.label).all()
        assert np.abs(ours.probability - theirs.probability).max() < 1e-6


def test_openvino_does_not_lend_its_memory(tiny_bundle: Path) -> None:
    with open_session(tiny_bundle / "segmenter.onnx", "openvino") as session:
        first = session.run({"image": IMAGE})["logits"]
        before = first.copy()
        session.run({"image": IMAGE + 1})
        assert (first == before).all()


def test_openvino_cannot_report_home(tiny_bundle: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from maskrt.runtime.engines.providers import open_session; "
        f"open_session(Path({str(tiny_bundle / 'segmenter.onnx')!r}), 'openvino'); "
        "loaded = [name for name, module in sys.modules.items() if name.startswith('openvino_telemetry') and module]; "
        "print(loaded)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "[]", ended.stderr


def test_openvino_precision_that_the_cpu_lacks(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    open_session(tiny_bundle / "segmenter.onnx", "openvino").close()
    with pytest.raises(ProviderUnavailable, match="this CPU has no bf16"):
        open_session(tiny_bundle / "segmenter.onnx", "openvino-bf16")


def test_openvino_that_takes_another_precision(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    class Compiled:
        def get_property(self, name: str) -> openvino.Type:
            return openvino.Type.bf16

    monkeypatch.setattr(openvino.Core, "compile_model", lambda *_: Compiled())
    with pytest.raises(ProviderUnavailable, match=r"took bf16 for segmenter\.onnx: use --provider cpu"):
        open_session(tiny_bundle / "segmenter.onnx", "openvino")


def test_openvino_that_is_not_installed(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProviderUnavailable, match=r"install maskrt\[openvino\]"):
        open_session(tiny_bundle / "segmenter.onnx", "openvino")


def test_absent_provider_is_named_with_the_mend(tiny_bundle: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("has CUDA")
    with pytest.raises(ProviderUnavailable, match=r"cuda requested, ONNX Runtime here offers .*maskrt\[gpu\]"):
        open_session(tiny_bundle / "segmenter.onnx", provider="cuda")


def test_unknown_provider(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="unknown provider 'tpu'; maskrt knows: cpu, cuda, ort-tensorrt, open"):
        open_session(tiny_bundle / "segmenter.onnx", provider="tpu")


def test_a_provider_that_onnxruntime_drops_is_an_error(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises((ProviderUnavailable, BundleError)):
        open_session(tiny_bundle / "segmenter.onnx", provider="cuda")


@pytest.mark.parametrize(("provider", "engine"), [("cpu", "ONNX Runtime"), ("openvino", "OpenVINO")])
def test_a_file_that_is_no_model(tmp_path: Path, provider: str, engine: str) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(BundleError, match=r"is no ONNX model") as error:
        open_session(tmp_path / "a.onnx", provider)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_closed_session_says_so(tiny_bundle: Path, provider: str) -> None:
    session = open_session(tiny_bundle / "segmenter.onnx", provider)
    feeds = {"image": np.zeros((1, 3, *INPUT_HW), np.float32)}
    session.close()
    session.close()
    with pytest.raises(NetworkError, match=r"segmenter.onnx: the session is closed: use it inside its `with` block"):
        session.run(feeds)
