"""The case `two-stage`, on networks that take milliseconds."""

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tiny_two_stage import write_tiny_two_stage

from maskrt.benchmarks.cases import two_stage_case
from maskrt.benchmarks.cases.two_stage_case import BASELINE, SETTINGS, Contestant, Seen, frame_gflops, scored
from maskrt.benchmarks.harness import measure
from maskrt.benchmarks.harness.measure import Measured, Row
from maskrt.benchmarks.harness.recording import Recording, Setup, draw_recording
from maskrt.benchmarks.harness.registry import BenchOptions, run_case
from maskrt.benchmarks.harness.report_json import read_report, write_report
from maskrt.benchmarks.reports.two_stage_plot import figure_of
from maskrt.benchmarks.scenes.bedside import draw_scene
from maskrt.runtime.bundle.bundle import Bundle, open_bundle
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.metrics import image_dice
from maskrt.runtime.kinds.open import open_pipeline

SIZE_WH, SIZE = (192, 108), 512


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_tiny_two_stage(tmp_path_factory.mktemp("bundles") / "two_stage", size=SIZE))


def flops_of(height: int, width: int) -> int:
    """Operations of tiny_two_stage.network on a picture in colour: strided, transposed and pointwise convolutions."""
    quarter = height // 2 * (width // 2)
    return 2 * (quarter * 4 * 3 * 9 + quarter * 4 * 2 * 4 + height * width * 3 * 2)


@pytest.mark.parametrize("name", SETTINGS)
def test_operations_are_those_of_both_graphs(bundle: Bundle, name: str) -> None:
    """A region of 100 x 80 is 512 x 410 at work, 64 x 51 for stage 1, which is padded to 64 x 64."""
    settings = SETTINGS[name]
    with open_pipeline(bundle.path, settings=settings) as pipeline:
        stages = pipeline(np.full((80, 100, 3), 115, np.uint8)).stages
    assert stages is not None
    windows = len(stages.windows_xywh)
    # 7 rows of 8 patches at 8 x 8, of which two fifths are 22.
    assert windows == (22 if settings.get("patch_fraction") else settings.get("patches", 0))
    side = SIZE // settings.get("patches", 1)
    expected = flops_of(64, 64) + windows * flops_of(side, side)
    assert frame_gflops(bundle, settings, (3, 5, 100, 80), windows) == expected / 1e9


def test_a_contestant_takes_the_frames_in_turns(bundle: Bundle, tmp_path: Path) -> None:
    recording = draw_recording(7, 2, tmp_path / "frames.npy", SIZE_WH)
    iterate = Contestant(Setup(bundle.path, recording, "cpu", 1), {"patches": 8, "patch_count": 3})()
    for seen in [iterate()[1] for _ in range(3)]:
        last = seen
    assert sorted(last) == [0, 1]
    with open_pipeline(bundle.path, threads=1, settings={"patches": 8, "patch_count": 3}) as pipeline:
        for index, (x, y, width, height) in enumerate(recording.rois):
            result = pipeline(np.load(recording.frames)[index], recording.rois[index])
            np.testing.assert_array_equal(last[index].mask, result.mask[y : y + height, x : x + width])
            assert result.stages is not None
            assert last[index].windows == len(result.stages.windows_xywh) == 3


def test_a_row_has_the_mean_of_its_frames(bundle: Bundle, rng: np.random.Generator) -> None:
    truths = [rng.random((80, 100)) < 0.5 for _ in range(2)]
    seen = {1: Seen(truths[1], 4), 0: Seen(truths[1], 2)}
    rois = [(0, 0, 100, 80), (0, 0, 100, 40)]
    row = scored(Row("4 patches", 1.0, 1.0, 2, 1.0), Measured((), {}, {"4 patches": seen}), truths, rois, bundle)
    assert row.dice == pytest.approx((image_dice(truths[0], truths[1]) + 1) / 2)
    high = flops_of(128, 128)
    assert row.gflops == pytest.approx((flops_of(64, 64) + 2 * high + flops_of(32, 64) + 4 * high) / 2e9)


@pytest.mark.bench
def test_the_case(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(first_seed: int, count: int, file: Path) -> Recording:
        return draw_recording(first_seed, count, file, SIZE_WH)

    whole = open_bundle(write_tiny_two_stage(tmp_path / "whole", size=SIZE, shrink=1))
    monkeypatch.setattr(measure, "SETTLE_S", 0.0)
    monkeypatch.setattr(two_stage_case, "draw_recording", small)
    monkeypatch.setattr(two_stage_case, "draw_scene", lambda seed: draw_scene(seed, SIZE_WH))
    monkeypatch.setattr(two_stage_case, "baseline_bundle", lambda *_: whole)
    monkeypatch.setattr(two_stage_case, "SETTINGS", {"4 patches": SETTINGS["4 patches"]})
    options = BenchOptions(bundle=bundle.path, frames=2, pairs=3, warmup=1, threads=1, work=tmp_path)
    lines: list[str] = []
    report = run_case("two-stage", options, lines.append)
    assert [row.name for row in report.rows] == [BASELINE, "4 patches"]
    assert all(row.dice is not None and 0 < row.dice <= 1 and row.runs == 3 and row.median_s > 0 for row in report.rows)
    more, less = (row.gflops for row in report.rows)
    assert more is not None
    assert less is not None
    assert more > less > 0
    assert math.isfinite(report.ratios[f"4 patches_vs_{BASELINE}"].median)
    write_report(report, tmp_path / "two-stage.json")
    assert msgspec.to_builtins(read_report(tmp_path / "two-stage.json").rows) == msgspec.to_builtins(report.rows)
    left, right = figure_of(tmp_path / "two-stage.json").axes
    assert left.lines[0].get_ydata().tolist() == [row.dice for row in report.rows]
    assert right.patches[0].get_height() == right.patches[2].get_height() == 100
    assert right.patches[1].get_height() == pytest.approx(100 * less / more)


def test_what_would_have_no_score_is_refused(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = BenchOptions(bundle=bundle.path, frames=8, pairs=7, work=tmp_path)
    with pytest.raises(InputError, match="give --pairs 8 or more"):
        run_case("two-stage", options, print)
    monkeypatch.setattr(two_stage_case, "WEIGHTS", tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="train it with make demo-unets"):
        run_case("two-stage", replace(options, pairs=8), print)
