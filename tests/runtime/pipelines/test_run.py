"""The batch loop: failures, regions, resuming, and being killed at any moment."""

import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fake_pipeline
import msgspec
import numpy as np
import pytest
from fake_pipeline import SETTINGS, FakePipeline, run_fake
from PIL import Image

from maskrt.runtime.errors import InputError, MaskrtError, NetworkError
from maskrt.runtime.io.records import Records
from maskrt.runtime.io.regions import roi_reader
from maskrt.runtime.io.sinks import WRITERS, FolderSink
from maskrt.runtime.io.sources import FileSource, open_source
from maskrt.runtime.pipelines.run import Outcome, Summary, run_batch
from maskrt.runtime.types import BadFrame, Frame


@pytest.fixture
def ward(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder of 12 pictures."""
    folder = tmp_path / "ward"
    folder.mkdir()
    for index in range(12):
        rgb = rng.integers(0, 60, (24, 32, 3), dtype=np.uint8)
        rgb[4:14, 6 + index : 16 + index] += 180
        Image.fromarray(rgb).save(folder / f"bed_{index}.png")
    return folder


def run(
    ward: Path, out: Path, resume: bool = False, settings=SETTINGS, **options
) -> tuple[Summary, FakePipeline, list]:
    """A batch that writes masks; what it returned, the pipeline, and the outcomes."""
    pipeline = FakePipeline()
    outcomes: list[Outcome] = []
    with open_source(str(ward)) as source, FolderSink(out, ("mask",), settings, resume) as sink:
        summary = run_batch(pipeline, source, sink, resume=resume, progress=outcomes.append, **options)
    return summary, pipeline, outcomes


def outputs(out: Path) -> dict[str, bytes]:
    """Everything but results.jsonl, which holds timings."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != "results.jsonl"
    }


def test_all_done(ward: Path, tmp_path: Path) -> None:
    summary, _, outcomes = run(ward, tmp_path / "out")
    assert summary == Summary(done=12)
    assert summary.exit_code == 0
    assert outcomes[10] == Outcome("bed_10", "done")
    assert len(outputs(tmp_path / "out")) == 12


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_failures_are_counted_and_the_run_goes_on(ward: Path, tmp_path: Path, batch: int) -> None:
    (ward / "bed_3.png").write_bytes(b"broken")
    Image.fromarray(np.full((24, 32, 3), 13, np.uint8)).save(ward / "bed_5.png")
    summary, _, outcomes = run(ward, tmp_path / "out", batch=batch)
    assert [outcome.name for outcome in outcomes] == [f"bed_{index}" for index in range(12)]
    assert summary == Summary(done=10, failed=2)
    assert summary.exit_code == 3
    assert [outcome.name for outcome in outcomes if outcome.status == "failed"] == ["bed_3", "bed_5"]
    assert "NaN" in outcomes[5].reason
    assert len(outputs(tmp_path / "out")) == 10


@pytest.mark.parametrize(("batch", "batches"), [(1, [1] * 12), (5, [5, 5, 2]), (12, [12]), (100, [12])])
def test_batches_write_what_single_frames_write(ward: Path, tmp_path: Path, batch: int, batches: list[int]) -> None:
    run(ward, tmp_path / "expected")
    summary, pipeline, outcomes = run(ward, tmp_path / "out", batch=batch)
    assert summary == Summary(done=12)
    assert pipeline.batches == batches
    assert [outcome.name for outcome in outcomes] == [f"bed_{index}" for index in range(12)]
    assert outputs(tmp_path / "out") == outputs(tmp_path / "expected")


def test_what_stops_a_batch_is_tried_again_frame_by_frame(ward: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((24, 32, 3), 214, np.uint8)).save(ward / "bed_5.png")
    (ward / "bed_6.png").write_bytes(b"broken")
    summary, pipeline, outcomes = run(ward, tmp_path / "out", batch=4)
    assert summary == Summary(done=10, failed=2)
    assert pipeline.batches == [4, 3, 1, 1, 1, 4]
    reasons = {outcome.name: outcome.reason for outcome in outcomes if outcome.status == "failed"}
    assert list(reasons) == ["bed_5", "bed_6"]
    assert reasons["bed_5"] == "encoder.onnx ran out of memory"


def test_no_more_frames_are_held_than_a_batch_has(ward: Path, tmp_path: Path) -> None:
    held: list[int] = []
    seen: list[weakref.ref[Frame | BadFrame]] = []

    class Counted(FileSource):
        def __iter__(self) -> Iterator[Frame | BadFrame]:
            for item in super().__iter__():
                seen.append(weakref.ref(item))
                held.append(sum(frame() is not None for frame in seen))
                yield item

    source = Counted(sorted(ward.glob("*.png")))
    with source, FolderSink(tmp_path / "out", ("mask",), SETTINGS) as sink:
        run_batch(FakePipeline(), source, sink, batch=4)
    assert held == [1, 2, 3, 4] * 3


def test_a_region_outside_fails_every_frame(ward: Path, tmp_path: Path) -> None:
    summary, pipeline, outcomes = run(ward, tmp_path / "out", roi=(30, 0, 10, 10))
    assert summary == Summary(failed=12)
    assert pipeline.calls == []
    assert outcomes[0].reason == "ROI x=30 y=0 width=10 height=10 does not lie in the 32 x 24 frame"


def test_a_region_per_frame(ward: Path, tmp_path: Path) -> None:
    regions = tmp_path / "regions"
    regions.mkdir()
    for index in range(9):
        (regions / f"bed_{index}.json").write_text(f'{{"roi_xywh": [{index}, 0, 8, 20], "size_wh": [32, 24]}}')
    (regions / "bed_9.json").write_text('{"roi_xywh": [1, 2, 3]}')
    (regions / "bed_10.json").write_text("{")
    summary, _, outcomes = run(ward, tmp_path / "out", roi=roi_reader(regions))
    assert summary == Summary(done=9, failed=3)
    assert "no such file; --roi-from needs one per image" in outcomes[11].reason
    assert "expected" in outcomes[9].reason
    mask = np.asarray(Image.open(tmp_path / "out/mask/bed_8.png"))
    assert mask[:, 8:16].any()
    assert not mask[:, 16:].any()
    with pytest.raises(InputError, match="no such folder"):
        roi_reader(tmp_path / "none")


@pytest.mark.parametrize("batch", [1, 5])
def test_resume_skips_what_is_done_and_redoes_what_is_not(ward: Path, tmp_path: Path, batch: int) -> None:
    out = tmp_path / "out"
    run(ward, out)
    before = outputs(out)
    (out / "mask/bed_2.png").unlink()
    (out / "mask/bed_4.png").write_bytes(b"altered")
    Image.fromarray(np.full((24, 32, 3), 200, np.uint8)).save(ward / "bed_6.png")
    summary, pipeline, _ = run(ward, out, resume=True, batch=batch)
    assert pipeline.calls == ["bed_2", "bed_4", "bed_6"]
    assert pipeline.batches == ([1, 1, 1] if batch == 1 else [2, 1])
    assert summary == Summary(done=3, skipped=9)
    assert {path for path, data in outputs(out).items() if data != before[path]} == {"mask/bed_6.png"}


def test_resume_tries_failed_frames_again(ward: Path, tmp_path: Path) -> None:
    whole = (ward / "bed_3.png").read_bytes()
    (ward / "bed_3.png").write_bytes(whole[:-40])
    assert run(ward, tmp_path / "out")[0] == Summary(done=11, failed=1)
    (ward / "bed_3.png").write_bytes(whole)
    assert run(ward, tmp_path / "out", resume=True)[0] == Summary(done=1, skipped=11)


def test_resume_with_other_settings_or_region_does_all_again(ward: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(ward, out)
    other = msgspec.structs.replace(SETTINGS, options={"provider": "cuda"})
    assert run(ward, out, resume=True, settings=other)[0] == Summary(done=12)
    assert run(ward, out, resume=True, settings=other, roi=(0, 0, 20, 20))[0] == Summary(done=12)
    assert run(ward, out, resume=True, settings=other, roi=(0, 0, 20, 20))[0] == Summary(skipped=12)


def test_resume_without_an_earlier_run_is_a_run(ward: Path, tmp_path: Path) -> None:
    assert run(ward, tmp_path / "out", resume=True)[0] == Summary(done=12)


def test_a_full_disk_stops_the_run(ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data) // 2)
    with pytest.raises(MaskrtError, match=r"results\.jsonl: the disk is full: free space"):
        run(ward, tmp_path / "out")


def killed_run(ward: Path, out: Path, fatal: int) -> subprocess.CompletedProcess[str]:
    """Run a batch that kills itself at its operation of that number on files; 0 is never."""
    command = [sys.executable, fake_pipeline.__file__, str(ward), str(out), str(fatal)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300)


def check_killed_runs(ward: Path, tmp_path: Path, points: Callable[[int], Iterable[int]]) -> None:
    """Kill a run at the points that are chosen of so many, check every file, and resume it to the end."""
    expected = tmp_path / "expected"
    operations = int(killed_run(ward, expected, 0).stdout)
    whole = outputs(expected)
    assert len(whole) == 12 * len(WRITERS)
    assert operations > 3 * len(whole)  # each is opened, synced and renamed
    for fatal in points(operations):
        out = tmp_path / f"killed_{fatal}"
        assert killed_run(ward, out, fatal).returncode == -signal.SIGKILL
        for path, data in outputs(out).items():
            assert path.endswith(".tmp") or data == whole[path]
        run_fake(ward, out, resume=True)
        assert outputs(out) == whole
        records = Records(out / "results.jsonl")
        assert [record.status for record in records] == ["ok"] * 12
        records.close()


def test_sigkill_leaves_whole_files_and_a_resumed_run_is_identical(
    ward: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    check_killed_runs(ward, tmp_path, lambda operations: rng.integers(1, operations + 1, 3).tolist())


@pytest.mark.slow
def test_sigkill_at_every_operation(ward: Path, tmp_path: Path) -> None:
    check_killed_runs(ward, tmp_path, lambda operations: range(1, operations + 1))


def test_a_name_too_long_for_its_results_fails_alone(ward: Path, tmp_path: Path) -> None:
    os.rename(ward / "bed_3.png", ward / f"{'b' * 251}.png")
    outcomes: list[Outcome] = []
    for resume, expected in ((False, Summary(done=11, failed=1)), (True, Summary(skipped=11, failed=1))):
        with (
            open_source(str(ward)) as source,
            FolderSink(tmp_path / "out", ("mask", "segments"), SETTINGS, resume) as sink,
        ):
            assert run_batch(FakePipeline(), source, sink, resume=resume, progress=outcomes.append) == expected
    assert {outcome.reason for outcome in outcomes if outcome.status == "failed"} == {
        f"its results would have names of 256 bytes, {tmp_path / 'out'} takes 255: rename the input"
    }


def test_a_network_that_fails_on_one_frame_fails_no_other(ward: Path, tmp_path: Path) -> None:
    class Failing(FakePipeline):
        def batch(self, frames: Any, rois: Any) -> Any:
            if any(frame.name == "bed_3" for frame in frames):
                raise NetworkError("out of order")
            return super().batch(frames, rois)

    with open_source(str(ward)) as source, FolderSink(tmp_path / "out", ("mask",), SETTINGS) as sink:
        assert run_batch(Failing(), source, sink, batch=5) == Summary(done=11, failed=1)
