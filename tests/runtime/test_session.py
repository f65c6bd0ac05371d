"""The engine's edge: providers, files that are no models, outputs that are no numbers."""

from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import INPUT_HW, write_tiny_bundle

from maskrt.runtime.errors import BundleError, NetworkError, ProviderUnavailable
from maskrt.runtime.pipeline import open_pipeline
from maskrt.runtime.session import open_session

IMAGE = np.zeros((1, 3, *INPUT_HW), np.float32)


def test_names_shapes_and_a_run(tiny_bundle: Path) -> None:
    with open_session(tiny_bundle / "segmenter.onnx", threads=1) as session:
        assert session.inputs == {"image": ("tensor(float)", (1, 3, *INPUT_HW))}
        assert session.run({"image": IMAGE})["logits"].shape == (1, 2, *INPUT_HW)
    with open_session(tiny_bundle / "encoder.onnx") as session:
        assert session.inputs == {"image": ("tensor(uint8)", (None, None, 3))}


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_errors(tmp_path: Path, fill: float) -> None:
    write_tiny_bundle(tmp_path, fill)
    with (
        open_session(tmp_path / "segmenter.onnx") as session,
        pytest.raises(NetworkError, match=r"segmenter\.onnx returned NaN or infinity in logits"),
    ):
        session.run({"image": IMAGE})


def test_a_nan_reaches_the_caller_of_the_pipeline(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, np.nan)
    with open_pipeline(tmp_path) as pipeline, pytest.raises(NetworkError, match="NaN"):
        pipeline(np.zeros((20, 30, 3), np.uint8))


def test_wrong_feeds_are_network_errors(tiny_bundle: Path) -> None:
    with open_session(tiny_bundle / "segmenter.onnx") as session, pytest.raises(NetworkError, match="failed"):
        session.run({"image": IMAGE[:, :, :5]})


def test_absent_provider_is_named_with_the_mend(tiny_bundle: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("has CUDA")
    with pytest.raises(ProviderUnavailable, match=r"cuda requested, ONNX Runtime here offers .*maskrt\[gpu\]"):
        open_session(tiny_bundle / "segmenter.onnx", provider="cuda")


def test_unknown_provider(tiny_bundle: Path) -> None:
    with pytest.raises(ProviderUnavailable, match="unknown provider 'tpu'; maskrt knows: cpu, cuda"):
        open_session(tiny_bundle / "segmenter.onnx", provider="tpu")


def test_a_provider_that_onnxruntime_drops_is_an_error(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises((ProviderUnavailable, BundleError)):
        open_session(tiny_bundle / "segmenter.onnx", provider="cuda")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(BundleError, match=r"a\.onnx cannot be loaded by ONNX Runtime") as error:
        open_session(tmp_path / "a.onnx")
    assert "\n" not in str(error.value)
