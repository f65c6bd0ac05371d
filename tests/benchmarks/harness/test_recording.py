"""The cases `latency` and `throughput`, on networks that take milliseconds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrt.benchmarks.cases import latency_case, throughput_case
from maskrt.benchmarks.harness import measure, tables
from maskrt.benchmarks.harness.measure import Row
from maskrt.benchmarks.harness.recording import FrameByFrame, Recording, Setup, Share, draw_recording, of_one_size
from maskrt.benchmarks.harness.registry import BenchOptions, run_case
from maskrt.benchmarks.harness.report_json import print_report, read_report, write_report
from maskrt.runtime.errors import InputError
from maskrt.runtime.kinds.open import open_pipeline

SIZE_WH = 192, 108


@pytest.fixture
def options(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> BenchOptions:
    def small(first_seed: int, count: int, file: Path) -> Recording:
        return draw_recording(first_seed, count, file, SIZE_WH)

    monkeypatch.setattr(measure, "SETTLE_S", 0.0)
    monkeypatch.setattr(latency_case, "draw_recording", small)
    monkeypatch.setattr(throughput_case, "draw_recording", small)
    return BenchOptions(bundle=tiny_bundle, frames=5, pairs=2, warmup=1, processes=(2,), streams=(2,))


@pytest.fixture
def setup(tiny_bundle: Path, tmp_path: Path) -> Setup:
    return Setup(tiny_bundle, draw_recording(7, 3, tmp_path / "frames.npy", SIZE_WH), "cpu", 1)


@pytest.mark.bench
def test_throughput(options: BenchOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    report = run_case("throughput", options, lines.append)
    peer, team = report.rows
    assert (peer.name, team.name) == ("1 process, 1 stream", "2 processes, 2 streams")
    for row in report.rows:
        assert row.frames_per_s == 5 / row.median_s
        assert row.p99_s is None
    assert list(report.ratios) == ["2 processes, 2 streams_vs_peer"]
    assert team.peak_rss_mb > 1.5 * peer.peak_rss_mb  # two processes, each with its models
    assert report.equality.masks == report.equality.identical_rles == 5  # every frame, once
    assert report.equality.label_pixels_different == 0
    assert any(note.startswith("batch N: N frames at a time") for note in report.notes)
    assert sum(line.startswith("pair ") for line in lines) == 2
    write_report(report, tmp_path / "throughput.json")
    assert read_report(tmp_path / "throughput.json") == report
    text = tables.case_markdown(tmp_path / "throughput.json")
    assert text.startswith("\n|  | median | p95 | runs | peak memory | frames/s |\n")
    assert "- Ratio 2 processes, 2 streams_vs_peer: " in text
    print_report(report)
    assert "frames/s" in capsys.readouterr().out


@pytest.mark.bench
def test_batches(options: BenchOptions, capsys: pytest.CaptureFixture[str]) -> None:
    options = replace(options, processes=(), streams=(1, 2), batch=(1, 2), frames=5)
    report = run_case("throughput", options, lambda _: None)
    names = [
        "1 process, 1 stream",
        "1 process, 1 stream, batch 2",
        "1 process, 2 streams",
        "1 process, 2 streams, batch 2",
    ]
    assert [row.name for row in report.rows] == names
    assert list(report.ratios) == [f"{name}_vs_peer" for name in names[1:]]
    for counts in report.equality_by_size.values():
        assert (counts.masks, counts.identical_rles, counts.label_pixels_different) == (5, 5, 0)
    print_report(report)
    assert "batch 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, throughput_case.USUAL),
        ({"batch": (1, 2, 8)}, ((1, 1, 2), (1, 1, 8))),
        ({"processes": (1, 2), "streams": (1, 2)}, ((1, 2, 1), (2, 1, 1), (2, 2, 1))),
        ({"processes": (2,), "streams": (1, 3), "batch": (4,)}, ((2, 1, 4), (2, 3, 4))),
        ({"processes": (1,)}, ()),
    ],
)
def test_what_is_measured(given: dict[str, Any], expected: tuple[throughput_case.Crew, ...]) -> None:
    """Every combination of what is named; a choice that is no full cross product where nothing is."""
    assert throughput_case.asked(BenchOptions(**given)) == expected


@pytest.mark.bench
def test_latency(options: BenchOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = replace(options, pairs=4, providers=("cpu", "openvino"))
    report = run_case("latency", options, lambda _: None)
    ours, other = report.rows
    assert (ours.name, other.name, ours.runs) == ("cpu", "openvino", 4)
    for row in report.rows:
        assert 0 < row.median_s <= row.p95_s <= row.p99_s  # type: ignore[operator]
        assert row.frames_per_s is None
        assert set(row.stages_ms) == {"segmenter", "encoder", "decoder", "masks", "voting", "assemble"}
    assert list(report.ratios) == ["cpu_vs_openvino"]
    write_report(report, tmp_path / "latency.json")
    assert "| p99 |" in tables.case_markdown(tmp_path / "latency.json")
    print_report(report)
    assert "p99 s" in capsys.readouterr().out


def test_frames_come_one_after_the_other_and_again(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    class Pipeline:
        def __call__(self, frame: np.ndarray, roi: Any) -> Any:
            seen.append(frame)
            assert roi in setup.recording.rois
            return type("Result", (), {"timings_ms": {"all": 1.0}})

    monkeypatch.setattr("maskrt.runtime.kinds.open.open_pipeline", lambda *_, **__: Pipeline())
    iterate = FrameByFrame(setup)()
    assert [iterate() for _ in range(4)] == [({"all": 1.0}, None)] * 4
    assert all((seen[0] == seen[3]).ravel())
    assert (seen[0] != seen[1]).any()


def test_regions_of_one_size(setup: Setup) -> None:
    """Their mean, about the same places, and inside the frame."""
    recording = Recording(setup.recording.frames, ((0, 0, 60, 40), (40, 30, 20, 20), (160, 100, 32, 8)))
    assert of_one_size(recording).rois == ((11, 8, 37, 23), (31, 28, 37, 23), (155, 85, 37, 23))
    drawn = of_one_size(setup.recording)
    assert len({roi[2:] for roi in drawn.rois}) == 1
    with open_pipeline(setup.bundle, threads=1) as pipeline:
        for frame, roi in zip(np.load(drawn.frames), drawn.rois, strict=True):
            assert pipeline(frame, roi).roi_xywh == roi


@pytest.mark.parametrize("crew", [(2, 1), (1, 2), (2, 7)])
def test_shares_are_the_whole_recording(setup: Setup, crew: tuple[int, int]) -> None:
    """Two streams with one pipeline, and batches, give what one frame after the other gives."""
    shares = [Share(setup, (0, 2), *crew)()()[1], Share(setup, (1,), 1)()()[1]]
    frames = np.load(setup.recording.frames)
    with open_pipeline(setup.bundle, threads=1) as pipeline:
        expected = [pipeline(*given).label for given in zip(frames, setup.recording.rois, strict=True)]
    found = throughput_case.merged(shares)
    assert list(found) == [0, 1, 2]
    assert all((found[index] == label).all() for index, label in enumerate(expected))
    assert throughput_case.compare(shares, shares).identical_rles == 3
    changed = [shares[0] | {2: 1 - shares[0][2]}, shares[1]]
    counts = throughput_case.compare(shares, changed)
    assert (counts.identical_rles, counts.different, counts.label_pixels_different) == (2, 1, expected[2].size)


@pytest.mark.parametrize(
    ("threads", "cores", "expected"),
    [(None, 8, {"1, 1": None, "1, 2": 4, "2, 1": 4, "2, 2": 2}), (2, 8, {"1, 1": 2, "1, 2": 1, "2, 1": 1, "2, 2": 1})],
)
def test_cores_are_divided(
    options: BenchOptions, monkeypatch: pytest.MonkeyPatch, threads: int | None, cores: int, expected: dict[str, Any]
) -> None:
    monkeypatch.setattr(throughput_case, "usable_cpus", lambda: cores)
    options = replace(options, threads=threads, processes=(1, 2), streams=(1, 2))
    crews = throughput_case.crews(Path("b"), Recording(Path("f"), ((0, 0, 1, 1),) * 5), options)
    found = {f"{len(crew)}, {crew[0].streams}": crew[0].setup.threads for crew in crews.values()}
    assert found == expected
    assert next(iter(crews)) == throughput_case.PEER
    for crew in crews.values():
        assert sorted(index for share in crew for index in share.indices) == [0, 1, 2, 3, 4]


def test_p99_is_a_time_that_was_measured() -> None:
    seconds = np.arange(1.0, 201.0)
    assert latency_case.with_p99(Row("cpu", 1.0, 1.0, 200, 1.0), seconds).p99_s == 199
    assert latency_case.with_p99(Row("cpu", 1.0, 1.0, 5, 1.0), seconds[:5]).p99_s == 5


@pytest.mark.parametrize(
    ("case", "given", "message"),
    [
        ("throughput", {"providers": ("cpu", "openvino")}, "one provider at a time, not cpu, openvino"),
        ("throughput", {"frames": 3}, "3 frames are too few for 4 at a time"),
        ("throughput", {"batch": (1, 2)}, "5 frames are too few for 8 at a time: give --frames 8 or more"),
        ("throughput", {"bundle": Path("nowhere")}, "nowhere is not a bundle"),
        ("latency", {"providers": ()}, "needs a provider"),
        ("latency", {"bundle": Path("nowhere")}, "nowhere is not a bundle"),
    ],
)
def test_what_cannot_be_measured_is_told(options: BenchOptions, case: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_case(case, replace(options, **given), pytest.fail)


def test_streams_need_threads_that_are_safe(options: BenchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    found = throughput_case.examine(providers=())  # type: ignore[attr-defined]
    monkeypatch.setattr(
        throughput_case, "examine", lambda providers: type("R", (), {"numba_threading_layers": ["workqueue"]})
    )
    assert found.numba_threading_layers
    with pytest.raises(InputError, match="TBB or OpenMP threads, which do not load: use --streams 1"):
        throughput_case.check(options)
    throughput_case.check(replace(options, streams=(1,)))
