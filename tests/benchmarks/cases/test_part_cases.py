"""The cases that measure one part of SOSS, with networks small enough to run them whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrt.benchmarks.cases import decoder_case, masks_case, precision_case, soss_models, voting_case
from maskrt.benchmarks.harness import measure
from maskrt.benchmarks.harness.registry import BenchOptions, run_case

pytestmark = pytest.mark.bench

OPTIONS = BenchOptions(size="tiny", pairs=1, warmup=0, points_per_side=8, threads=1)


@pytest.fixture(autouse=True)
def _tiny(tiny_models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SETTLE_S", 0.0)
    monkeypatch.setitem(soss_models.MODELS, "tiny", lambda _options, _report: tiny_models)


def test_masks() -> None:
    report = run_case("masks", OPTIONS, lambda _: None)
    assert [row.name for row in report.rows] == ["maskrt (tiny)", "pytorch_upstream (tiny)"]
    assert set(report.ratios) == {"vs_pytorch_upstream", "vs_pytorch_upstream_tiny"}
    assert report.equality.masks > 0
    assert report.equality.different == 0
    assert all(row.loaded_rss_mb > 20 for row in report.rows)


def test_decoder() -> None:
    report = run_case("decoder", replace(OPTIONS, points_per_side=16), lambda _: None)
    assert set(report.ratios) >= {"vs_onnxruntime_official", "vs_pytorch_eager"}
    assert report.equality.masks > 0
    assert report.equality.different == 0
    assert report.equality.max_pred_iou_difference < 1e-5


def test_encoder() -> None:
    report = run_case("encoder", OPTIONS, lambda _: None)
    assert [row.name for row in report.rows][:3] == ["maskrt (tiny)", "pytorch_eager (tiny)", "openvino (tiny)"]
    assert {"vs_pytorch_eager", "vs_openvino"} <= set(report.ratios)
    assert report.equality.masks > 0
    assert report.equality.different == 0
    (line,) = (note for note in report.notes if note.startswith("tiny, openvino:"))
    assert " 0 different; 0.00% of the label's pixels" in line


def test_encoder_leaves_out_what_the_cpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    lines: list[str] = []
    report = run_case("encoder", OPTIONS, lines.append)
    assert all("bf16" not in name for name in report.ratios)
    assert any("left out: openvino-bf16" in line for line in lines)


def test_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scenes = precision_case.draw_scene  # type: ignore[attr-defined]
    monkeypatch.setattr(precision_case, "draw_scene", lambda number: scenes(number, (192, 108)))
    report = run_case("precision", replace(OPTIONS, work=tmp_path), lambda _: None)
    names = ["int8 (tiny_segmenter)", "fp32 (tiny_segmenter)", "int8 (tiny_encoder)", "fp32 (tiny_encoder)"]
    assert [row.name for row in report.rows] == names
    assert set(report.ratios) == {"vs_fp32", "vs_fp32_tiny_segmenter", "vs_fp32_tiny_encoder"}
    assert set(report.equality_by_size) == {"tiny_segmenter", "tiny_encoder"}
    assert sum(note.startswith(("tiny, segmenter: ", "tiny, encoder: ")) for note in report.notes) == 2


def test_voting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voting_case, "SEGMENTS", 6)
    report = run_case("voting", OPTIONS, lambda _: None)
    assert set(report.ratios) == {"vs_numpy_dense", "vs_numpy_dense_1080p"}
    assert (report.equality.masks, report.equality.identical_rles) == (6, 6)


def test_comparisons_see_what_differs() -> None:
    rle: Any = {"size": [4, 5], "counts": [3, 6, 11]}
    other: Any = {"size": [4, 5], "counts": [0, 15, 5]}
    box = [0, 0, 2, 3]
    found = masks_case.compare([(box, rle), (box, rle), (box, rle)], [(box, rle), ([1, 0, 2, 3], rle), (box, other)])
    assert (found.masks, found.identical_rles, found.different) == (3, 1, 2)
    assert masks_case.compare([(box, rle)], []).different == 1
    iou, masks = np.zeros((2, 3), np.float32), np.ones((2, 4, 4), np.float32)
    wrong = masks.copy()
    wrong[1, 0, 0] = 1.5
    assert decoder_case.compare((iou, masks), (iou, wrong)).different == 1
    assert decoder_case.compare((iou, masks), (iou, masks[:1])).different == 2
