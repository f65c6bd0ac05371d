"""`maskrt run` on a bundle of tiny networks: everything a folder of pictures can do to it."""

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from drawn_video import write_video
from PIL import Image
from tiny_bundle import write_tiny_bundle

from maskrt.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """run(*options) on tmp_path/ward with the tiny bundle, into tmp_path/out -> exit code, stdout, stderr."""

    def call(*options: object, bundle: Path = tiny_bundle, source: object = tmp_path / "ward") -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(part) for part in ("run", bundle, source, "--out", tmp_path / "out", *options)])
        output = capfd.readouterr()
        return int(stopped.value.code or 0), output.out, output.err

    return call


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Three pictures with a bright block on a dark ground."""
    folder = tmp_path / "ward"
    folder.mkdir()
    for index in range(3):
        rgb = np.full((90, 160, 3), 40, np.uint8)
        rgb[20:60, 30 + 10 * index : 90 + 10 * index] = 210
        Image.fromarray(rgb).save(folder / f"bed_{index}.png")
    return folder


def lines_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in out.rglob("*.*") if path.is_file() and path.suffix != ".jsonl"}


def test_a_folder(run: Run, ward: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run() == (0, f"3 done, 0 skipped, 0 failed: {out}\n", "")
    assert sorted(path.name for path in out.iterdir()) == ["mask", "results.jsonl"]
    mask = np.asarray(Image.open(out / "mask/bed_1.png"))
    assert mask.shape == (90, 160)
    assert set(np.unique(mask)) == {0, 255}
    bright = np.zeros((90, 160), bool)
    bright[20:60, 40:100] = True
    # Discs that vote as the pixels under them do: mostly on the block, hardly beside it.
    assert (mask[bright] == 255).mean() > 0.3
    assert (mask[~bright] == 255).mean() < 0.1
    line = lines_of(out)[1]
    assert (line["source"], line["roi_xywh"], line["status"]) == ("bed_1", [0, 0, 160, 90], "ok")
    assert line["segments"] > 3
    assert set(line["timings_ms"]) >= {"segmenter", "encoder", "decoder", "masks", "voting"}


def test_batches_write_the_same_files(run: Run, ward: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(ward / "bed_3.png")
    (ward / "bed_1.png").write_bytes(b"broken")
    kinds = "--write", "mask,segments,label"
    code, told, _ = run(*kinds)
    assert (code, told[:28]) == (3, "3 done, 0 skipped, 1 failed:")
    expected = {path.removeprefix(str(tmp_path / "out")): data for path, data in contents(tmp_path / "out").items()}
    (tmp_path / "out").rename(tmp_path / "single")
    assert run(*kinds, "--batch", "3")[0] == 3
    found = {path.removeprefix(str(tmp_path / "out")): data for path, data in contents(tmp_path / "out").items()}
    assert found == expected
    assert [line["source"] for line in lines_of(tmp_path / "out")] == [f"bed_{index}" for index in range(4)]
    # How many are taken at a time is no other setting: what is done stays.
    assert run(*kinds, "--resume")[1].startswith("0 done, 3 skipped, 1 failed")
    assert "Invalid value for '--batch': 0 is not in the range x>=1" in run("--batch", "0")[2]


def test_everything_that_can_be_written(run: Run, ward: Path, tmp_path: Path) -> None:
    assert run("--write", "mask,overlay,segments,probability,label", "--roi", "20,10,120,70")[0] == 0
    out = tmp_path / "out"
    assert len(contents(out)) == 15
    segments = json.loads((out / "segments/bed_0.json").read_text())
    assert {segment["class_name"] for segment in segments["segments"]} == {"background", "occlusion"}
    probability = np.asarray(Image.open(out / "probability/bed_0.png"))
    assert probability[40, 60] > 40_000
    assert probability[5, 5] == 0
    assert np.asarray(Image.open(out / "overlay/bed_0.png"))[10, 20].tolist() == [255, 220, 0]


def test_resume_and_other_options(run: Run, ward: Path, tmp_path: Path) -> None:
    run()
    before = contents(tmp_path / "out")
    assert run() == (
        2,
        "",
        f"error: {tmp_path / 'out'} holds an earlier run: add --resume to continue it, or choose another --out\n",
    )
    (tmp_path / "out/mask/bed_2.png").unlink()
    assert run("--resume")[1].startswith("1 done, 2 skipped, 0 failed")
    assert contents(tmp_path / "out") == before
    code, out, err = run("--resume", "--set", "points_per_side=2")
    assert (code, out[:17]) == (0, "3 done, 0 skipped")
    assert "3 frames were done with another bundle, other masks or other options: doing them again" in err


def test_some_frames_fail(run: Run, ward: Path, tmp_path: Path) -> None:
    (ward / "bed_1.png").write_bytes(b"broken")
    Image.new("RGB", (40, 40)).save(ward / "small.png")
    code, out, err = run("--roi", "0,0,100,80")
    assert (code, out) == (3, f"2 done, 0 skipped, 2 failed: {tmp_path / 'out'}\n")
    assert "failed: bed_1: " in err
    assert "failed: small: ROI x=0 y=0 width=100 height=80 does not lie in the 40 x 40 frame" in err
    assert [line["status"] for line in lines_of(tmp_path / "out")] == ["ok", "failed", "ok", "failed"]


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA", "CMYK", "P", "1"])
def test_kinds_of_images(run: Run, tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.full((30, 40), 40_000, np.uint16)) if mode == "I;16" else Image.new(mode, (40, 30))
    grey.save(tmp_path / "a.tif")
    assert run(source=tmp_path / "a.tif")[0] == 0


@pytest.mark.parametrize("size_wh", [(1, 1), (30000, 2), (2, 30000)])
def test_odd_sizes(run: Run, tmp_path: Path, size_wh: tuple[int, int]) -> None:
    Image.new("RGB", size_wh, (200, 200, 200)).save(tmp_path / "a.png")
    code, _, err = run(source=tmp_path / "a.png")
    assert (code, err) == (0, "")
    assert Image.open(tmp_path / "out/mask/a.png").size == size_wh


def test_exif_rotation(run: Run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert run(source=tmp_path / "a.jpg")[0] == 0
    assert Image.open(tmp_path / "out/mask/a.png").size == (30, 40)


def test_over_the_cap(run: Run, ward: Path) -> None:
    code, _, err = run("--max-megapixels", "0.01")
    assert code == 3
    assert "160 x 90, over the limit of 0.01 megapixels: if you trust it, use --max-megapixels 1" in err


def test_a_video(run: Run, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for value in (20, 120, 220):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert run(source=tmp_path / "v.mkv")[0] == 0
    assert [(line["source"], line["timestamp_us"]) for line in lines_of(tmp_path / "out")] == [
        ("v_000000", 0),
        ("v_000001", 100_000),
        ("v_000002", 200_000),
    ]
    assert (tmp_path / "out/mask/v_000002.png").is_file()


def test_a_track_of_a_video(run: Run, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        streams = [container.add_stream("mjpeg", rate=10) for _ in range(2)]
        for stream, size in zip(streams, ((64, 48), (48, 64)), strict=True):
            stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
        for stream in streams:
            picture = np.full((stream.height, stream.width, 3), 120, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    code, out, err = run(source=tmp_path / "v.mkv")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'v.mkv'} has 2 video tracks: choose one with --track: 0 (video mjpeg 64")
    assert not (tmp_path / "out").exists()
    assert run("--track", "1", source=tmp_path / "v.mkv")[0] == 0
    assert Image.open(tmp_path / "out/mask/v_000000.png").size == (48, 64)


def test_a_video_that_players_show_otherwise_is_named(run: Run, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 1, "mpeg4", "yuv420p", sample_aspect_ratio=Fraction(4, 3))
    code, _, err = run(source=path)
    assert (code, err) == (0, f"{path}: pixels are 4:3, not square; they are used as stored\n")


def test_a_region_per_image(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(SystemExit):
        main(["scenes", "--count", "2", "--size", "160x90", "--out", str(tmp_path / "scenes")])
    folder = tmp_path / "scenes"
    assert run("--roi-from", folder / "instances", source=folder / "images")[0] == 0
    expected = [json.loads(path.read_text())["roi_xywh"] for path in sorted((folder / "instances").glob("*.json"))]
    assert [line["roi_xywh"] for line in lines_of(tmp_path / "out")] == expected


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--roi", "1,2"), 2, "expected X,Y,WIDTH,HEIGHT"),
        (("--roi", "0,0,5,5", "--roi-from", "."), 2, "exclude each other"),
        (("--roi-from", "nowhere"), 2, "nowhere: no such folder"),
        (("--set", "vote=loud"), 2, "Invalid enum value 'loud'"),
        (("--set", "target=2"), 2, "target 2 is not one of 2 classes"),
        (("--write", "mask,video"), 2, "cannot write video; maskrt writes: mask"),
        (("--provider", "tpu"), 2, "unknown provider 'tpu'"),
        (("--device", "1"), 2, "provider 'cpu:1': a GPU's number goes behind cuda or ort-tensorrt"),
    ],
)
def test_options_that_cannot_be_used(
    run: Run, ward: Path, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    found, out, err = run(*options)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_setting_lists_those_of_the_bundle(run: Run, ward: Path, tmp_path: Path) -> None:
    found, out, err = run("--set", "points=3")
    assert (found, out) == (2, "")
    first, *known = err.splitlines()
    assert "there is no setting points" in first
    assert len(known) > 10
    assert all(re.fullmatch(r"  [a-z_]+=\S+: \S.*", line) for line in known), known
    assert any(line.startswith("  points_per_side=4: ") for line in known)
    assert not (tmp_path / "out").exists()


def test_absent_provider(run: Run, ward: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("has CUDA")
    for options in (("--provider", "cuda"), ("--provider", "cuda", "--device", "1")):
        code, _, err = run(*options)
        assert code == 1
        assert "cuda requested, ONNX Runtime here offers" in err
    code, _, err = run("--provider", "ort-tensorrt")
    assert code == 1
    assert "ort-tensorrt requested, ONNX Runtime here offers" in err
    assert "install maskrt[ort-trt] in place of maskrt[cpu]" in err


def test_empty_folder_and_no_bundle(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    assert "holds no image or video; looked for" in run()[2]
    assert "is not a bundle" in run(bundle=tmp_path)[2]


def test_networks_that_return_nan_fail_every_frame(run: Run, ward: Path, tmp_path: Path) -> None:
    code, out, err = run(bundle=write_tiny_bundle(tmp_path / "nan", np.nan))
    assert (code, out[:27]) == (3, "0 done, 0 skipped, 3 failed")
    assert err.count("segmenter.onnx returned NaN or infinity in logits") == 3
