"""run, eval, verify and build on a bundle of two stages."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_two_stage import write_tiny_two_stage

from maskrt.kernels import sets
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.evaluation import verify_stages
from maskrt.runtime.evaluation.verify_stages import certify_stages
from maskrt.runtime.kinds.open import open_pipeline

Maskrt = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def two_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_two_stage(tmp_path_factory.mktemp("bundles") / "two_stage")


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """images/: one in colour, one grey; truth/: their bright pixels."""
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    for name, channels in (("colour", 3), ("grey", 1)):
        squares = rng.integers(0, 256, (6, 10, channels), dtype=np.uint8).repeat(15, axis=0).repeat(15, axis=1)
        Image.fromarray(squares.squeeze()).save(tmp_path / "images" / f"{name}.png")
        truth = (squares.mean(axis=2) > 127).astype(np.uint8) * np.uint8(255)
        Image.fromarray(truth).save(tmp_path / "truth" / f"{name}.png")
    return tmp_path


def test_run(two_stage: Path, folder: Path, maskrt: Maskrt) -> None:
    out = folder / "out"
    common = ("run", two_stage, folder / "images", "--out", out, "--write", "mask,overlay,label,segments")
    assert maskrt(*common, "--set", "patch_fraction=0.5")[:2] == (0, f"2 done, 0 skipped, 0 failed: {out}\n")
    with open_pipeline(two_stage, settings={"patch_fraction": 0.5}) as pipeline:
        for line in (out / "results.jsonl").read_text().splitlines():
            record = json.loads(line)
            rgb = np.asarray(Image.open(folder / "images" / f"{record['source']}.png").convert("RGB"))
            result = pipeline(rgb)
            mask = np.asarray(Image.open(out / "mask" / f"{record['source']}.png"))
            assert result.mask.any()
            np.testing.assert_array_equal(mask > 0, result.mask)
            # 90 x 150 becomes 77 x 128, patches of 32 pad that to 96 x 128.
            assert record["stages"]["working_hw"] == [77, 128]
            assert record["stages"]["padded_hw"] == [96, 128]
            assert result.stages is not None
            assert [tuple(window) for window in record["stages"]["windows_xywh"]] == list(result.stages.windows_xywh)
            assert (len(record["stages"]["windows_xywh"]), record["segments"]) == (6, 0)
    assert maskrt(*common, "--set", "patch_fraction=0.5", "--resume")[1].startswith("0 done, 2 skipped")
    assert maskrt(*common, "--set", "windows=sliding", "--resume")[1].startswith("2 done, 0 skipped")


def test_options_that_exclude_each_other(two_stage: Path, folder: Path, maskrt: Maskrt) -> None:
    sets_ = ("--set", "patch_count=3", "--set", "uncertainty=0.25")
    code, _, error = maskrt("run", two_stage, folder / "images", "--out", folder / "out", *sets_)
    assert code == 2
    assert "patch_count and uncertainty exclude each other: set all but one to null" in error


def test_eval(two_stage: Path, folder: Path, maskrt: Maskrt) -> None:
    common = ("eval", two_stage, folder / "images", "--truth", folder / "truth")
    code, told, _ = maskrt(*common, "--json", folder / "scores.json", "--figures", folder / "figures")
    assert code == 0
    assert "two_stage" in told
    report = json.loads((folder / "scores.json").read_text())
    assert set(report) == {"images", "failed", "pooled", "per_image"}
    assert report["images"] == 2
    assert 0 < report["per_image"]["stage_1"]["dice"] < report["per_image"]["two_stage"]["dice"] < 1
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["colour.png", "grey.png"]


@pytest.mark.parametrize("setting", ["rank=logit", "windows=sliding"])
def test_verify(two_stage: Path, folder: Path, maskrt: Maskrt, setting: str) -> None:
    certificate = folder / "certificate.json"
    common = ("verify", two_stage, "--image", folder / "images", "--json", certificate)
    code, told, _ = maskrt(*common, "--set", setting, "--roi", "3,5,140,80")
    assert code == 0
    assert told.count("11200 pixels, 0 ties, 0 different") == 2
    first, second = json.loads(certificate.read_text())
    assert (first["windows"], first["window_differences"], first["different"]) == (4, 0, 0)
    assert max(first["largest"], second["largest"]) < 1e-5


def test_verify_counts_what_differs(two_stage: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other kernels on the plain side: a window elsewhere, and pixels of another class."""
    rgb = np.asarray(Image.open(folder / "images" / "colour.png"))

    plain = sets.REFERENCE

    def turned(values: np.ndarray, size_hw: tuple[int, int], side: int, out: np.ndarray) -> None:
        plain.patch_means(np.ascontiguousarray(values[:, ::-1]), size_hw, side, out)

    monkeypatch.setattr(verify_stages.sets, "REFERENCE", replace(plain, patch_means=turned))
    found = certify_stages(open_bundle(two_stage), "colour", rgb, None)
    assert found.window_differences > 0
    assert found.different > 0
    assert not found.passed


def test_build_and_run_on_engines(tensorrt_machine: Any, two_stage: Path, folder: Path, maskrt: Maskrt) -> None:
    bundle = shutil.copytree(two_stage, folder / "ward")
    code, told, _ = maskrt("build", bundle, "--engine", "tensorrt", "--set", "patches=2")
    assert (code, told.count(": built: ")) == (0, 2)
    with (
        open_pipeline(bundle, settings={"patches": 2}) as cpu,
        open_pipeline(bundle, "tensorrt", settings={"patches": 2}) as engines,
    ):
        for name in ("colour", "grey"):
            rgb = np.asarray(Image.open(folder / "images" / f"{name}.png").convert("RGB"))
            ours, theirs = engines(rgb), cpu(rgb)
            assert ours.stages == theirs.stages
            np.testing.assert_allclose(ours.probability, theirs.probability, rtol=0, atol=1e-3)
