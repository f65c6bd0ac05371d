"""The written files are what readers of the formats expect."""

import errno
import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fake_pipeline import SETTINGS, FakePipeline
from PIL import Image

from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.files import sha256_of, write_bytes
from maskrt.runtime.io.sinks import WRITERS, FolderSink
from maskrt.runtime.rle import decode_rle
from maskrt.runtime.types import BadFrame, Frame


def frame_of(rng: np.random.Generator, source: str = "bed", index: int = 0) -> Frame:
    """Noise with a bright block."""
    rgb = rng.integers(0, 60, (30, 40, 3), dtype=np.uint8)
    rgb[5:15, 10:30] += 180
    return Frame(rgb, index, source, timestamp_us=40_000)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def lines_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_all_kinds(tmp_path: Path, rng: np.random.Generator) -> None:
    frame = frame_of(rng)
    result = FakePipeline()(frame, (8, 2, 25, 20))
    with FolderSink(tmp_path, tuple(WRITERS), SETTINGS) as sink:
        sink.write(frame, result)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask/bed.png")), result.mask * np.uint8(255))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "label/bed.png")), result.label)
    assert np.asarray(Image.open(tmp_path / "overlay/bed.png")).shape == frame.rgb.shape
    probability = Image.open(tmp_path / "probability/bed.png")
    assert probability.mode == "I;16"
    assert np.abs(np.asarray(probability) / 65535 - result.probability).max() <= 0.5 / 65535 + 1e-7
    (line,) = lines_of(tmp_path)
    assert line["files"] == {path: sha256_of(tmp_path / path) for path in files_below(tmp_path) if "/" in path}
    assert (line["source"], line["index"], line["timestamp_us"], line["status"]) == ("bed", 0, 40_000, "ok")
    assert (line["roi_xywh"], line["segments"], line["reason"]) == ([8, 2, 25, 20], 1, None)
    assert line["timings_ms"] == {"fake": 1.235}
    assert line["settings"]["bundle_sha256"] == SETTINGS.bundle_sha256


def test_segments_are_what_pycocotools_reads(tmp_path: Path, rng: np.random.Generator) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    frame = frame_of(rng)
    result = FakePipeline()(frame)
    with FolderSink(tmp_path, ("segments",), SETTINGS) as sink:
        sink.write(frame, result)
    written = json.loads((tmp_path / "segments/bed.json").read_text())
    assert written["size"] == [30, 40]
    (segment,) = written["segments"]
    compressed = coco.frPyObjects(segment["segmentation"], 30, 40)
    assert np.array_equal(coco.decode(compressed), result.mask)
    assert segment["area"] == coco.area(compressed)
    assert segment["bbox"] == coco.toBbox(compressed).tolist()
    assert np.array_equal(decode_rle(segment["segmentation"]), result.mask)
    assert (segment["class"], segment["class_name"]) == (1, "occlusion")
    assert segment["predicted_iou"] == pytest.approx(0.9)
    assert segment["stability_score"] == pytest.approx(0.95)


def test_only_what_is_asked_for_is_written(tmp_path: Path, rng: np.random.Generator) -> None:
    frame = frame_of(rng)
    with FolderSink(tmp_path, ("mask",), SETTINGS) as sink:
        sink.write(frame, FakePipeline()(frame))
    assert files_below(tmp_path) == ["mask/bed.png", "results.jsonl"]


def test_a_failure_is_a_line_without_files(tmp_path: Path, rng: np.random.Generator) -> None:
    frame = frame_of(rng)
    with FolderSink(tmp_path, ("mask",), SETTINGS) as sink:
        sink.write(frame, FakePipeline()(frame))
        sink.write_failure(frame, "the network returned NaN")
        sink.write_failure(BadFrame(1, "next", "cannot be decoded"), "cannot be decoded")
    assert files_below(tmp_path) == ["results.jsonl"]
    assert [(line["source"], line["status"]) for line in lines_of(tmp_path)] == [
        ("bed", "ok"),
        ("bed", "failed"),
        ("next", "failed"),
    ]


def test_is_done_needs_the_same_everything(tmp_path: Path, rng: np.random.Generator) -> None:
    frame, roi = frame_of(rng), (0, 0, 40, 30)
    with FolderSink(tmp_path, ("mask", "label"), SETTINGS) as sink:
        assert not sink.is_done(frame, roi)
        sink.write(frame, FakePipeline()(frame, roi))

    def is_done(kinds: tuple[str, ...] = ("mask",), settings=SETTINGS, frame=frame, roi=roi) -> bool:
        with FolderSink(tmp_path, kinds, settings, resume=True) as sink:
            return sink.is_done(frame, roi)

    assert is_done()
    assert is_done(("label", "mask"))
    assert not is_done(("mask", "overlay"))
    assert not is_done(roi=(0, 0, 40, 29))
    assert not is_done(settings=msgspec.structs.replace(SETTINGS, bundle_sha256="0" * 64))
    assert not is_done(settings=msgspec.structs.replace(SETTINGS, options={"points_per_side": 3}))
    assert not is_done(frame=Frame(255 - frame.rgb, 0, "bed"))
    assert not is_done(frame=Frame(frame.rgb, 0, "other"))
    (tmp_path / "mask/bed.png").write_bytes(b"altered")
    assert not is_done()
    assert is_done(("label",))
    (tmp_path / "label/bed.png").unlink()
    assert not is_done(("label",))


def test_doing_a_frame_again_removes_its_other_files(tmp_path: Path, rng: np.random.Generator) -> None:
    frame = frame_of(rng)
    with FolderSink(tmp_path, ("mask", "overlay"), SETTINGS) as sink:
        sink.write(frame, FakePipeline()(frame))
    other = msgspec.structs.replace(SETTINGS, options={})
    with FolderSink(tmp_path, ("mask",), other, resume=True) as sink:
        assert sink.differing == 1
        sink.write(frame, FakePipeline()(frame))
        assert sink.differing == 0
    assert files_below(tmp_path) == ["mask/bed.png", "results.jsonl"]


@pytest.mark.parametrize("torn", [b'{"source": "x", "ind', b"\x00\x00\x00", b"{}"])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, rng: np.random.Generator, torn: bytes) -> None:
    frame = frame_of(rng)
    with FolderSink(tmp_path, ("mask",), SETTINGS) as sink:
        sink.write(frame, FakePipeline()(frame))
    whole = (tmp_path / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(whole + torn)
    with FolderSink(tmp_path, ("mask",), SETTINGS, resume=True) as sink:
        assert sink.is_done(frame, (0, 0, 40, 30))
        assert (tmp_path / "results.jsonl").read_bytes() == whole
        sink.write_failure(BadFrame(1, "x", ""), "")
    assert len(lines_of(tmp_path)) == 2


def test_a_foreign_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b'{"hello": 1}\n')
    with pytest.raises(InputError, match="line 1 is not a result of maskrt"):
        FolderSink(tmp_path, ("mask",), SETTINGS, resume=True)


def test_folders_that_could_be_overwritten_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "mask").mkdir()
    (tmp_path / "mask/truth.png").write_bytes(b"precious")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"not empty and holds no results\.jsonl"):
            FolderSink(tmp_path, ("mask",), SETTINGS, resume)
    with pytest.raises(InputError, match="is a file"):
        FolderSink(tmp_path / "mask/truth.png", ("mask",), SETTINGS)
    frame = frame_of(rng)
    with FolderSink(tmp_path / "new", ("mask",), SETTINGS) as sink:
        sink.write(frame, FakePipeline()(frame))
    with pytest.raises(InputError, match="add --resume"):
        FolderSink(tmp_path / "new", ("mask",), SETTINGS)


@pytest.mark.parametrize(
    ("kinds", "message"), [((), "cannot write nothing"), (("mask", "video"), "cannot write video")]
)
def test_unknown_kinds(tmp_path: Path, kinds: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"{message}; maskrt writes: mask, overlay"):
        FolderSink(tmp_path, kinds, SETTINGS)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with FolderSink(tmp_path, ("mask",), SETTINGS):
        (tmp_path / "mask").mkdir()
        half = tmp_path / "mask/.maskrt-12-ab.tmp"
        half.write_bytes(b"half")
        with pytest.raises(InputError, match=r"another run is writing to .*: wait for its end"):
            FolderSink(tmp_path, ("mask",), SETTINGS, resume=True)
        assert half.exists()
    FolderSink(tmp_path, ("mask",), SETTINGS, resume=True).close()
    assert not half.exists()


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    FolderSink(tmp_path, ("mask",), SETTINGS).close()
    (tmp_path / "mask").mkdir()
    (tmp_path / "mask/.maskrt-12-ab.tmp").write_bytes(b"half")
    with FolderSink(tmp_path, ("mask",), SETTINGS, resume=True):
        assert files_below(tmp_path) == ["results.jsonl"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_bytes(tmp_path / "a.png", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(MaskrtError, match=r"cannot write .*a\.png: No space left on device: free space"):
        write_bytes(tmp_path / "a.png", b"new")
    assert files_below(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    write_bytes(tmp_path / "deep/er/a.png", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "deep/er/a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode
