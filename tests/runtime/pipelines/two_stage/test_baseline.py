"""The document's baseline, one network on the whole picture, in a bundle of two stages."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from plain_two_stage import answer, probability, resized
from tiny_two_stage import write_tiny_two_stage

from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import TwoStageManifest
from maskrt.runtime.evaluation.compare import compare_stages
from maskrt.runtime.evaluation.scoring import TWO_STAGE_EVALUATION
from maskrt.runtime.kinds.builtin import BUILTIN
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline

Maskrt = Callable[..., tuple[int, str, str]]
ROLES = ("low", "high", "baseline")


@pytest.fixture(scope="module", params=["keep", "square"])
def bundle(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return write_tiny_two_stage(tmp_path_factory.mktemp("bundles") / "three", fit=request.param, roles=ROLES)


@pytest.fixture
def rgb(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (6, 10, 3), dtype=np.uint8).repeat(15, axis=0).repeat(15, axis=1)


def test_it_sees_the_whole_working_picture(bundle: Path, rgb: np.ndarray) -> None:
    spec = open_bundle(bundle).expect(TwoStageManifest).two_stage
    size = [128, 128] if spec.fit == "square" else [77, 128]
    working = np.asarray(Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float64)
    session = onnxruntime.InferenceSession(bundle / "baseline.onnx")
    expected = resized(probability(answer(session, working, [-(-side // 32) * 32 for side in size], spec)), [90, 150])
    with TwoStagePipeline(open_bundle(bundle)) as pipeline:
        assert pipeline.baseline is not None
        np.testing.assert_allclose(pipeline.baseline([rgb])[0][1], expected[0], rtol=0, atol=5e-5)
        compared = compare_stages(pipeline, rgb, rgb[..., 0] > 127)
    np.testing.assert_array_equal(compared.masks["baseline"], expected[0] > 0.5)
    assert list(compared.masks) == ["baseline", "stage_1", "two_stage"]
    assert TWO_STAGE_EVALUATION.picture(compared).ndim == 3


def test_a_run_does_not_load_it(bundle: Path, rgb: np.ndarray) -> None:
    loaded: list[str] = []

    def note(role: str, session: object) -> object:
        loaded.append(role)
        return session

    with TwoStagePipeline(open_bundle(bundle), wrap_session=note) as pipeline:  # type: ignore[arg-type]
        pipeline(rgb)
    assert loaded == ["low", "high"]


def test_a_bundle_without_one(tmp_path: Path, rgb: np.ndarray) -> None:
    plain = open_bundle(write_tiny_two_stage(tmp_path / "two"))
    assert TWO_STAGE_EVALUATION.methods_of(plain) == ("stage_1", "two_stage")
    with TwoStagePipeline(plain) as pipeline:
        assert pipeline.baseline is None
        assert list(compare_stages(pipeline, rgb, rgb[..., 0] > 127).masks) == ["stage_1", "two_stage"]


def test_eval_prints_its_row(bundle: Path, rgb: np.ndarray, tmp_path: Path, maskrt: Maskrt) -> None:
    for folder, picture in (("images", rgb), ("truth", (rgb.mean(axis=2) > 127).astype(np.uint8) * np.uint8(255))):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "a.png")
    scores = tmp_path / "scores.json"
    code, out, err = maskrt("eval", bundle, tmp_path / "images", "--truth", tmp_path / "truth", "--json", scores)
    assert code == 0, err
    assert "baseline" in out
    assert list(json.loads(scores.read_text())["pooled"]) == ["baseline", "stage_1", "two_stage"]


def test_an_engine_of_it_takes_the_working_picture(bundle: Path) -> None:
    sizes = next(kind for kind in BUILTIN if kind.manifest is TwoStageManifest).sizes
    opened = open_bundle(bundle)
    least = 128 if opened.expect(TwoStageManifest).two_stage.fit == "square" else 32
    (axes,) = sizes["baseline"](opened).values()
    assert axes[2] == axes[3] == (least, 128, 128)
