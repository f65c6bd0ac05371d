"""`maskrt run --trace`: what it writes, and that nothing is written without it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import write_tiny_bundle

from maskrt.runtime.errors import MaskrtError, NetworkError
from maskrt.runtime.pipelines.base import FramePipeline, Outcomes, View
from maskrt.runtime.pipelines.trace import KEPT_RUNS, TracedPipeline, Tracer
from maskrt.runtime.types import Frame

Maskrt = Callable[..., tuple[int, str, str]]
ROI = (20, 10, 120, 70)


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Two pictures with a bright block on a dark ground."""
    folder = tmp_path / "ward"
    folder.mkdir()
    for index in range(2):
        rgb = np.full((90, 160, 3), 40, np.uint8)
        rgb[20:60, 30 + 10 * index : 90 + 10 * index] = 210
        Image.fromarray(rgb).save(folder / f"bed_{index}.png")
    return folder


@pytest.fixture
def run(maskrt: Maskrt, tiny_bundle: Path, ward: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """run(*options) on the ward, into tmp_path/out."""

    def call(*options: object, bundle: Path = tiny_bundle, out: Path = tmp_path / "out") -> tuple[int, str, str]:
        return maskrt("run", bundle, ward, "--out", out, *options)

    return call


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_every_frame_has_a_folder(run: Callable[..., Any], ward: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code, out, err = run("--trace", trace, "--roi", ",".join(map(str, ROI)), "--write", "mask,label")
    assert (code, err) == (0, ""), out
    assert sorted(path.name for path in trace.iterdir()) == ["bed_0", "bed_1"]
    for folder in trace.iterdir():
        index = json.loads((folder / "index.json").read_text())
        assert (index["name"], index["roi_xywh"], index["error"]) == (folder.name, list(ROI), None)
        assert index["segments"] > 3
        assert set(index["timings_ms"]) >= {"segmenter", "encoder", "decoder", "masks", "voting"}
        kept = {run["file"] for run in index["runs"]} - {None}
        assert files_of(folder) == kept | {"index.json", "input.png", "result.npz"}
        x, y, width, height = ROI
        frame = np.asarray(Image.open(ward / f"{folder.name}.png"))
        np.testing.assert_array_equal(
            np.asarray(Image.open(folder / "input.png")), frame[y : y + height, x : x + width]
        )
        result = np.load(folder / "result.npz")
        assert set(result) == {"mask", "label", "probability"}
        written = np.asarray(Image.open(tmp_path / "out" / "mask" / f"{folder.name}.png"))
        np.testing.assert_array_equal(result["mask"], written > 0)


def test_runs_are_in_order_and_the_first_keep_their_arrays(run: Callable[..., Any], tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert run("--trace", trace, "--set", "points_per_side=8")[0] == 0  # 64 points, of which 8 are taken at a time
    index = json.loads((trace / "bed_0" / "index.json").read_text())
    roles = {
        role: [each for each in index["runs"] if each["role"] == role] for role in ("segmenter", "encoder", "decoder")
    }
    assert sum(map(len, roles.values())) == len(index["runs"])
    assert {role: len(runs) for role, runs in roles.items()} == {"segmenter": 1, "encoder": 1, "decoder": 8}
    for role, runs in roles.items():
        assert [each["number"] for each in runs] == list(range(1, len(runs) + 1))
        for each in runs:
            assert each["file"] == (f"{role}-{each['number']:03d}.npz" if each["number"] <= KEPT_RUNS else None)
            assert each["seconds"] > 0
            if each["file"] is None:
                continue
            arrays = np.load(trace / "bed_0" / each["file"])
            described = {f"in.{name}": value for name, value in each["inputs"].items()}
            described |= {f"out.{name}": value for name, value in each["outputs"].items()}
            assert set(arrays) == set(described)
            for name, about in described.items():
                array = arrays[name]
                assert (list(array.shape), str(array.dtype)) == (about["shape"], about["dtype"])
                assert (about["least"], about["most"]) == pytest.approx((array.min(), array.max()))
    assert [each["inputs"]["point_coords"]["shape"] for each in roles["decoder"]] == [[8, 2, 2]] * 8


def test_a_trace_changes_no_answer(run: Callable[..., Any], tmp_path: Path) -> None:
    kinds = "--write", "mask,label,probability,segments"
    assert run(*kinds, out=tmp_path / "plain")[0] == 0
    assert run(*kinds, "--batch", "2", "--trace", tmp_path / "trace", out=tmp_path / "traced")[0] == 0
    plain, traced = (
        {name: (tmp_path / out / name).read_bytes() for name in files_of(tmp_path / out) if name != "results.jsonl"}
        for out in ("plain", "traced")
    )
    assert plain == traced


def test_without_it_nothing_else_is_written(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = files_of(tmp_path)
    assert run()[0] == 0
    assert files_of(tmp_path) - before == {"out/mask/bed_0.png", "out/mask/bed_1.png", "out/results.jsonl"}


def test_a_failed_frame_says_why(run: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err = run("--trace", tmp_path / "trace", bundle=write_tiny_bundle(tmp_path / "nan", np.nan))
    assert code == 3
    assert err.count("NaN or infinity in logits") == 2
    index = json.loads((tmp_path / "trace" / "bed_1" / "index.json").read_text())
    assert "NaN or infinity in logits" in index["error"]
    assert index["segments"] is None
    assert (tmp_path / "trace" / "bed_1" / "input.png").is_file()
    assert not (tmp_path / "trace" / "bed_1" / "result.npz").exists()
    (failed,) = index["runs"]
    assert (failed["role"], failed["file"], failed["outputs"]) == ("segmenter", "segmenter-001.npz", {})
    assert "NaN or infinity in logits" in failed["error"]
    assert set(np.load(tmp_path / "trace" / "bed_1" / failed["file"])) == {f"in.{name}" for name in failed["inputs"]}


def test_the_error_of_a_network_is_traced_and_is_the_frames_own(tmp_path: Path) -> None:
    class Broken(FramePipeline):
        def _segment(self, views: Sequence[View]) -> Outcomes:
            raise NetworkError("the network segmenter failed: no kernel")

        def close(self) -> None: ...

    rgb = np.zeros((4, 4, 3), np.uint8)
    traced = TracedPipeline(Broken(), Tracer(tmp_path / "trace"))
    (found,) = traced.batch([Frame(rgb, name="bed")], [None])
    assert isinstance(found, NetworkError)
    with pytest.raises(MaskrtError, match=r"bed exists: another run writes there, choose another --trace"):
        traced.batch([Frame(rgb, name="bed")], [None])
    index = json.loads((tmp_path / "trace" / "bed" / "index.json").read_text())
    assert index["error"] == "the network segmenter failed: no kernel"
    assert (tmp_path / "trace" / "bed" / "input.png").is_file()


@pytest.mark.parametrize("what", ["a folder", "a file"])
def test_a_place_that_is_taken_is_refused(run: Callable[..., Any], tmp_path: Path, what: str) -> None:
    trace = tmp_path / "trace"
    if what == "a folder":
        trace.mkdir()
        (trace / "notes.txt").write_text("mine")
    else:
        trace.write_text("mine")
    before = files_of(tmp_path)
    code, out, err = run("--trace", trace)
    assert (code, out) == (2, "")
    assert err == f"error: {trace} exists and is not an empty folder: choose a new one for --trace\n"
    assert files_of(tmp_path) == before


def test_an_empty_folder_is_taken(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "trace").mkdir()
    assert run("--trace", tmp_path / "trace")[0] == 0
    assert sorted(path.name for path in (tmp_path / "trace").iterdir()) == ["bed_0", "bed_1"]
