"""The case `refine`, its scenes, and what selections cost, on a tiny refiner."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs maskrt[export]")

from maskrt.benchmarks.cases import refine_case, refine_models
from maskrt.benchmarks.cases.refine_case import ADAPTIVE, FULL, ORIGINAL, STRIDED
from maskrt.benchmarks.cases.refine_models import RefineModels
from maskrt.benchmarks.harness import measure
from maskrt.benchmarks.harness.measure import Measured, Row, Spread
from maskrt.benchmarks.harness.registry import BenchOptions, run_case
from maskrt.benchmarks.harness.report_json import read_report, write_report
from maskrt.benchmarks.reports import refine_quality
from maskrt.benchmarks.scenes.refinement import RefineScene, refine_scene, rough_mask
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.refine_metrics import RefineScores

OPTIONS = BenchOptions(size="tiny", pairs=1, warmup=0, threads=1)


@pytest.fixture
def models(sure_refiner_bundle: Path, sure_crm_spec: str) -> RefineModels:
    return RefineModels(sure_refiner_bundle, sure_crm_spec, True, "tiny: a note")


@pytest.mark.parametrize("size_wh", [(96, 64), (64, 96), (160, 90), (121, 77)])
def test_scenes(size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    scene = refine_scene(900000, size_wh)
    assert (scene.rgb.shape, scene.rgb.dtype) == ((height, width, 3), np.uint8)
    assert (scene.truth.shape, scene.truth.dtype) == ((height, width), np.bool_)
    assert (scene.rough.shape, scene.rough.dtype) == ((height, width), np.float32)
    assert set(np.unique(scene.rough)) <= {0.0, 1.0}
    again, other = refine_scene(900000, size_wh), refine_scene(900001, size_wh)
    np.testing.assert_array_equal(scene.rgb, again.rgb)
    assert (scene.rgb != other.rgb).any()


def test_rough_masks_are_right_but_for_the_outline(blobs: Any, rng: np.random.Generator) -> None:
    """A cell is 1/128 of the longer side: nothing farther than two from the outline is wrong, and corners are."""
    truth = blobs(rng, 600, 1280, 5) > 0
    rough = rough_mask(truth) > 0.5
    wrong = rough != truth
    assert 0 < wrong.mean() < 0.05
    inside = cv2.distanceTransform(truth.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~truth).astype(np.uint8), cv2.DIST_L2, 5)
    assert (inside + outside)[wrong].max() <= 20
    for value in (False, True):
        same = np.full((50, 70), value)
        np.testing.assert_array_equal(rough_mask(same), same.astype(np.float32))


def test_quality_of_selections(models: RefineModels) -> None:
    told: list[int] = []
    seeds = range(900000, 900002)
    found = refine_quality.measure_refiner(models.bundle, seeds, told.append, ((96, 64),), ("full", "strided:4"))
    assert told == [900000, 900001]
    assert (found.scenes, found.first_seed, found.sizes_wh) == (2, 900000, ((96, 64),))
    rough, full, strided = found.rows
    assert [row.name for row in found.rows] == ["rough", "full", "strided:4"]
    scores = RefineScores()
    for seed in seeds:
        scene = refine_scene(seed, (96, 64))
        scores.add(scene.truth, scene.rough > 0.5)
    assert (rough.iou, rough.mba, rough.decoded_fraction, rough.full_time_ratio) == (scores.iou, scores.mba, 0.0, None)
    assert full.decoded_fraction == 1
    assert full.full_time_ratio == Spread(1.0, 1.0, 1.0)
    assert 0 < strided.decoded_fraction < 1
    assert strided.full_time_ratio is not None
    assert strided.full_time_ratio.min <= strided.full_time_ratio.median <= strided.full_time_ratio.max
    assert all(0 <= value <= 1 for row in found.rows for value in (row.iou, row.mba))
    assert msgspec.json.decode(msgspec.json.encode(found), type=refine_quality.RefineQuality) == found


def test_the_program_writes_its_figures(
    models: RefineModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = refine_quality.measure_refiner

    def small(bundle: Path, seeds: Any, progress: Any) -> Any:
        return measured(bundle, seeds, progress, ((96, 64),), ("full",))

    monkeypatch.setattr(refine_quality, "measure_refiner", small)
    file = tmp_path / "quality.json"
    arguments = ["--bundle", str(models.bundle), "--scenes", "1", "--first-seed", "900003", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["refine_quality", *arguments])
    refine_quality.main()
    output = capsys.readouterr()
    assert output.out == file.read_text()
    found = msgspec.json.decode(file.read_bytes(), type=refine_quality.RefineQuality)
    assert (found.scenes, found.first_seed, len(found.rows)) == (1, 900003, 2)
    assert output.err == "seed 900003 done\n"


def made_up(seconds: dict[str, list[float]], values: dict[str, Any] | None = None) -> Measured:
    rows = tuple(Row(name, 1.0, 1.0, len(times), 100.0) for name, times in seconds.items())
    return Measured(rows, {}, values or {}, {name: np.array(times) for name, times in seconds.items()})


def test_a_ratio_is_of_pairs() -> None:
    measured = made_up({"slow": [4.0, 9.0, 10.0], "fast": [2.0, 3.0, 1.0]})
    assert measured.ratio("slow", "fast") == Spread(3.0, 2.0, 10.0)
    assert measured.ratio("fast", "fast") == Spread(1.0, 1.0, 1.0)
    with pytest.raises(KeyError):
        measured.ratio("slow", "none")


def test_ratios_of_every_picture_and_of_the_last() -> None:
    first = {ORIGINAL: [8.0], FULL: [4.0], STRIDED: [2.0], ADAPTIVE: [1.0]}
    last = {FULL: [9.0], STRIDED: [6.0], ADAPTIVE: [2.0]}
    found = refine_case.ratios({"demo_2k": made_up(first), "demo_6k": made_up(last)})
    assert {name: spread.median for name, spread in found.items()} == {
        "full_vs_pytorch_original": 2.0,
        "full_vs_pytorch_original_demo_2k": 2.0,
        "strided4_vs_pytorch_original": 4.0,
        "strided4_vs_pytorch_original_demo_2k": 4.0,
        "adaptive_vs_pytorch_original": 8.0,
        "adaptive_vs_pytorch_original_demo_2k": 8.0,
        "adaptive_vs_strided4": 3.0,
        "adaptive_vs_strided4_demo_2k": 2.0,
        "adaptive_vs_strided4_demo_6k": 3.0,
    }


def test_comparison_tells_ties_from_differences() -> None:
    original = np.array([[0.1, 0.5 + 1e-5, 0.9, 0.5 - 2e-5]], np.float32)

    def compared(*changes: tuple[int, float]) -> Any:
        ours = original.copy()
        for at, value in changes:
            ours[0, at] = value
        return refine_case.compare(made_up({}, {FULL: (ours, 1.0), ORIGINAL: (original, 1.0)}))

    same = compared((0, 0.2))
    assert (same.masks, same.identical_rles, same.ties, same.different) == (1, 1, 0, 0)
    assert same.max_pred_iou_difference == pytest.approx(0.1)
    assert msgspec.json.decode(msgspec.json.encode(same), type=type(same)) == same  # counts, or no report is read back
    tie = compared((1, 0.49999), (3, 0.50001))
    assert (tie.identical_rles, tie.ties, tie.different) == (0, 1, 0)
    different = compared((1, 0.49999), (0, 0.6))
    assert (different.identical_rles, different.ties, different.different) == (0, 0, 1)


def test_scores_where_the_models_mean_something(models: RefineModels) -> None:
    truth = np.zeros((20, 30), np.bool_)
    truth[:, 15:] = True
    scene = RefineScene(np.zeros((20, 30, 3), np.uint8), truth, truth.astype(np.float32))
    half = truth.astype(np.float32)
    half[:10] = 0
    measured = made_up({FULL: [1.0], STRIDED: [1.0]}, {FULL: (truth * np.float32(0.9), 1.0), STRIDED: (half, 0.25)})
    prepared = {"tiny": models, "random": replace(models, trained=False)}
    full, strided = refine_case.scored("tiny_2k", measured, scene, prepared)
    assert (full.name, full.iou, full.mba, full.decoded_fraction) == ("full (tiny_2k)", 1.0, 1.0, 1.0)
    assert (strided.name, strided.iou, strided.mba, strided.decoded_fraction) == (
        "strided:4 (tiny_2k)",
        0.5,
        0.75,
        0.25,
    )
    full, _ = refine_case.scored("random_2k", measured, scene, prepared)
    assert (full.iou, full.mba, full.decoded_fraction) == (None, None, 1.0)


@pytest.mark.bench
def test_the_whole_case(models: RefineModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every contestant once, in workers of their own, which get scene and models as data."""
    monkeypatch.setattr(measure, "SETTLE_S", 0.0)
    monkeypatch.setattr(refine_case, "refine_models", lambda *_: {"tiny": models})
    monkeypatch.setitem(refine_case.PICTURES, "2k", (150, 100))
    sides = ORIGINAL, "pytorch_index_tables", "full, tile 128", "contour, eager", STRIDED, ADAPTIVE
    monkeypatch.setitem(refine_case.SIDES, "2k", sides)
    lines: list[str] = []
    report = run_case("refine", OPTIONS, lines.append)
    assert [row.name for row in report.rows] == [f"{name} (tiny_2k)" for name in (FULL, *sides)]
    assert (report.equality.masks, report.equality.different) == (1, 0)
    assert report.equality.max_pred_iou_difference < 1e-4
    assert list(report.equality_by_size) == ["tiny_2k"]
    rows = {row.name.partition(" (")[0]: row for row in report.rows}
    assert rows[FULL].decoded_fraction == rows[ORIGINAL].decoded_fraction == 1
    fraction = rows[STRIDED].decoded_fraction
    assert fraction is not None
    assert 0 < fraction < 1
    assert rows[FULL].iou == pytest.approx(rows[ORIGINAL].iou, abs=1e-3)
    assert rows[FULL].iou == pytest.approx(rows["full, tile 128"].iou, abs=1e-3)
    assert rows["pytorch_index_tables"].mba == pytest.approx(rows[ORIGINAL].mba, abs=1e-2)
    assert {"full_vs_pytorch_original", "adaptive_vs_strided4", "adaptive_vs_strided4_tiny_2k"} <= set(report.ratios)
    assert report.notes[0] == "tiny: a note"
    assert any(line.startswith("tiny_2k: pair 1 of 1: ") for line in lines)
    write_report(report, tmp_path / "refine.json")
    assert read_report(tmp_path / "refine.json") == report


def test_what_cannot_be_measured_is_told(models: RefineModels, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown size 'huge' of refine; known: demo, resnet50, all"):
        run_case("refine", replace(OPTIONS, size="huge"), print)
    monkeypatch.setattr(refine_case, "refine_models", lambda *_: {"tiny": models})
    with pytest.raises(InputError, match="unknown picture 3k, 9k; known: 2k, 4k, 6k"):
        run_case("refine", replace(OPTIONS, pictures=("9k", "2k", "3k")), print)


def test_random_models_are_made_once(models: RefineModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle with the same recipe in its note is taken as it is."""
    from maskrt.export.architectures import crm
    from maskrt.export.bundles import refiner

    made: list[str] = []

    def export(spec: str, out: Path, *, note: str, **_: Any) -> None:
        import json
        import shutil

        from maskrt.runtime.bundle.seal import sealed

        made.append(spec)
        shutil.copytree(models.bundle, out)
        file = out / "bundle.json"
        file.write_bytes(sealed(json.loads(file.read_text()) | {"note": note}))

    small = crm.CrmConfig(width=4, blocks=(1, 1, 1, 0))
    monkeypatch.setattr(crm, "CrmConfig", lambda: small)
    monkeypatch.setattr(refiner, "export_refiner", export)
    first, second = (refine_models.refine_models("resnet50", tmp_path, lambda _: None)["resnet50"] for _ in range(2))
    assert first == second
    assert not first.trained
    assert made == [f"resnet50:{tmp_path / 'refine-resnet50' / 'crm.pth'}"] == [first.crm]
    assert "random weights" in first.note
