"""The case `soss`, with networks small enough to run it whole."""

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")
# The spec only: importing segment_anything needs torchvision.
if importlib.util.find_spec("segment_anything") is None:
    pytest.skip("needs maskrt[export]", allow_module_level=True)

from maskrt.benchmarks.cases import soss_case, soss_models
from maskrt.benchmarks.cases.random_sam import random_sam
from maskrt.benchmarks.cases.soss_contestants import UpstreamContestant, Workload
from maskrt.benchmarks.cases.soss_models import Models, check_same_weights, random_models
from maskrt.benchmarks.harness import measure
from maskrt.benchmarks.harness.registry import BenchOptions, run_case
from maskrt.benchmarks.harness.report_json import read_report, write_report
from maskrt.runtime.bundle.specs import MasksSpec
from maskrt.runtime.errors import InputError
from maskrt.runtime.kinds import open as pipeline

OPTIONS = BenchOptions(size="tiny", pairs=2, warmup=0, points_per_side=4, threads=1)


def test_random_weights_give_masks_worth_timing(rgb: np.ndarray, tiny_config: Any) -> None:
    from maskrt.benchmarks.peers.sam_upstream import upstream_generator

    settings = MasksSpec(points_per_side=8, box_nms_thresh=1.0, min_mask_region_area=0)
    sam = random_sam(tiny_config, 0, rgb, settings)
    every = replace_thresholds(settings, pred_iou=0.0, stability=0.0)
    confident = replace_thresholds(settings, pred_iou=settings.pred_iou_thresh, stability=0.0)
    counts = [len(upstream_generator(sam, s).generate(rgb)) for s in (every, confident, settings)]
    assert counts[0] == 3 * 64
    assert 0.2 < counts[1] / counts[0] < 0.45
    assert counts[2] > 0.4 * counts[1]


def replace_thresholds(settings: MasksSpec, pred_iou: float, stability: float) -> MasksSpec:
    return msgspec.structs.replace(settings, pred_iou_thresh=pred_iou, stability_score_thresh=stability)


@pytest.mark.bench
def test_the_whole_case(tiny_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SETTLE_S", 0.0)
    monkeypatch.setattr(soss_case, "HELD_OUT_SCENES", 2)
    models = replace(tiny_models, trained=True)
    monkeypatch.setitem(soss_models.MODELS, "tiny", lambda _options, _report: models)
    lines: list[str] = []
    report = run_case("soss", OPTIONS, lines.append)
    ours, peer, loop = report.rows
    names = "maskrt (tiny)", "pytorch_upstream (tiny)", "onnxruntime_loop (tiny)"
    assert tuple(row.name for row in report.rows) == names
    assert set(ours.stages_ms) == {"segmenter", "encoder", "decoder", "masks", "voting", "assemble"}
    assert sum(ours.stages_ms.values()) / 1e3 <= 1.5 * ours.p95_s
    assert peer.peak_rss_mb > ours.peak_rss_mb > 20  # PyTorch itself is larger than all of ours
    assert loop.peak_rss_mb > ours.peak_rss_mb
    of_each = {"vs_pytorch_upstream", "vs_onnxruntime_loop", "guided_vs_grid"}
    assert set(report.ratios) == of_each | {f"{name}_tiny" for name in of_each}
    assert report.ratios["guided_vs_grid"] == report.ratios["guided_vs_grid_tiny"]
    (note,) = (note for note in report.notes if note.startswith("guided_vs_grid (tiny): "))
    assert " on 2 held-out scenes (seeds 900000 to 900001); " in note
    assert re.search(r"SOSS IoU 0\.\d{3} with the grid, 0\.\d{3} guided$", note)
    assert lines[-2:] == [f"tiny: guided prompts, scene {seed} done" for seed in (900000, 900001)]  # after the pairs
    assert report.equality.masks > 0
    assert report.equality.different == 0
    assert report.equality.label_pixels_different <= 0.01 * 150 * 90
    assert report.environment.threads == 1
    assert any(note.startswith("tiny: a note; ") for note in report.notes)
    assert any(line.startswith("tiny: pair 2 of 2: ") for line in lines)
    write_report(report, tmp_path / "soss.json")
    assert read_report(tmp_path / "soss.json") == report


@pytest.mark.bench
def test_guided_prompts_are_measured_as_asked(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid first, which is what the ratio is of, and both with the case's own points and threads."""
    given: dict[str, dict[str, Any]] = {}

    def open_pipeline(bundle: Path, **options: Any) -> Any:
        given[options["settings"]["prompts"]] = options
        return pipeline.open_pipeline(bundle, **options)

    monkeypatch.setattr(soss_case, "open_pipeline", open_pipeline)
    monkeypatch.setattr(soss_case, "HELD_OUT_SCENES", 1)
    models = Models(tiny_bundle, "", "", np.zeros((2, 2, 3), np.uint8), (0, 0, 2, 2), "", trained=True)
    found = soss_case.measure_guided("tiny", models, OPTIONS, lambda _: None)
    assert list(given) == [row.name for row in found.rows] == ["grid", "guided"]
    assert all(options["threads"] == 1 for options in given.values())
    assert all(options["settings"]["points_per_side"] == 4 for options in given.values())
    ratio = found.rows[1].grid_time_ratio
    assert soss_case.guided_ratios({"demo": found}, "demo") == {"guided_vs_grid_demo": ratio, "guided_vs_grid": ratio}
    # Without a size it would be taken for that of the largest one, which is not trained.
    assert soss_case.guided_ratios({"demo": found}, "vit_b") == {"guided_vs_grid_demo": ratio}
    assert soss_case.guided_ratios({}, "vit_b") == {}


@pytest.fixture
def _own_threads() -> Iterator[None]:
    """A contestant sets the threads of its process, which is ours here; PyTorch resizes otherwise with one thread."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.mark.bench
@pytest.mark.usefixtures("_own_threads")
def test_the_onnxruntime_loop_gives_upstreams_masks(tiny_models: Models, tmp_path: Path) -> None:
    """The peer must do the whole work, or its time means nothing."""
    frame = tmp_path / "frame.npy"
    np.save(frame, tiny_models.rgb)
    work = Workload(tiny_models.bundle, tiny_models.segmenter, tiny_models.sam, frame, tiny_models.roi, 4, 1)
    found = {engine: UpstreamContestant(work, engine)()()[1] for engine in ("pytorch", "onnxruntime")}
    (expected, label), (records, same_label) = found["pytorch"], found["onnxruntime"]
    assert len(records) == len(expected) > 0
    assert [r["segmentation"] for r in records] == [r["segmentation"] for r in expected]
    assert (label == same_label).all()


@pytest.mark.bench
def test_models_are_kept_and_checked(tiny_models: Models, rgb: np.ndarray) -> None:
    folder = tiny_models.bundle.parent
    before = (tiny_models.bundle / "encoder.onnx").stat().st_mtime_ns
    again = random_models("custom", folder, rgb, 4, pytest.fail, "mobilenet_v2", (64, 64))  # pytest.fail: no step runs
    assert again == (tiny_models.bundle, tiny_models.segmenter, tiny_models.sam)
    assert (tiny_models.bundle / "encoder.onnx").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="its encoder was not made from"):
        check_same_weights(tiny_models.bundle, tiny_models.segmenter, tiny_models.segmenter)
    with pytest.raises(InputError, match="is missing: PyTorch needs the checkpoint"):
        check_same_weights(tiny_models.bundle, tiny_models.segmenter, "custom:nowhere.pth")


def test_a_record_of_the_roi_in_the_frame() -> None:
    from maskrt.runtime.rle import decode_rle, encode_rle

    mask = np.zeros((2, 3), np.bool_)
    mask[0, 1] = True
    record: dict[str, Any] = {
        "segmentation": encode_rle(mask),
        "point_coords": [[1.5, 0.25]],
        "bbox": [1, 0, 0, 0],
        "area": 1,
    }
    moved = soss_case.record_in_frame(record, (4, 5, 3, 2), (9, 8))
    assert np.argwhere(decode_rle(moved["segmentation"])).tolist() == [[5, 5]]
    assert (moved["point_coords"], moved["bbox"], moved["area"]) == ([[5.5, 5.25]], [5, 5, 0, 0], 1)
    assert soss_case.record_in_frame(record, (0, 0, 3, 2), (2, 3)) is record


def test_what_cannot_be_measured_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown case 'nothing'; known: soss"):
        run_case("nothing", OPTIONS, print)
    with pytest.raises(InputError, match="unknown size 'huge'; known: demo, vit_b, all"):
        run_case("soss", replace(OPTIONS, size="huge"), print)
    with pytest.raises(InputError, match="the demo's bundle is missing at"):
        soss_models.demo_models(OPTIONS, print, tmp_path)
