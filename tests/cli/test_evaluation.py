"""eval and verify from the command line, on the tiny bundle."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrt.cli.main import main
from maskrt.runtime.bundle.seal import sealed


@pytest.fixture
def frames(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two images with truth and regions; a third one is not an image."""
    for folder in ("images", "truth", "regions"):
        (tmp_path / folder).mkdir()
    for stem in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{stem}.png")
        truth = np.zeros((60, 80), np.uint8)
        truth[10:30, 20:50] = 255
        Image.fromarray(truth).save(tmp_path / "truth" / f"{stem}.png")
        (tmp_path / "regions" / f"{stem}.json").write_text('{"roi_xywh": [5, 5, 70, 50]}')
    return tmp_path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def test_eval_writes_scores_and_only_the_pictures_asked_for(tiny_bundle, frames, capsys):
    scores = frames / "scores.json"
    common = ("eval", tiny_bundle, frames / "images", "--truth", frames / "truth", "--roi-from", frames / "regions")
    assert run(*common, "--json", scores) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("soss", "iou, pooled", "iou, per image", "dice, per image"))
    report = json.loads(scores.read_text())
    assert report["images"] == 2
    assert report["failed"] == []
    pooled = {"accuracy", "f1", "precision", "recall", "iou", "auc"}
    assert set(report["pooled"]) == set(report["per_image"]) == {"segmenter", "hard_vote", "soss"}
    assert set(report["pooled"]["soss"]) == pooled
    assert set(report["per_image"]["soss"]) == pooled | {"dice"}
    assert not (frames / "figures").exists()
    assert run(*common, "--figures", frames / "figures") == 0
    assert sorted(path.name for path in (frames / "figures").iterdir()) == ["a.png", "b.png"]


def test_eval_counts_what_it_cannot_score(tiny_bundle, frames, capsys):
    (frames / "truth" / "b.png").unlink()
    (frames / "images" / "c.png").write_text("no image")
    assert run("eval", tiny_bundle, frames / "images", "--truth", frames / "truth", "--json", frames / "s.json") == 3
    report = json.loads((frames / "s.json").read_text())
    assert report["images"] == 1
    assert [failure["source"] for failure in report["failed"]] == ["b", "c"]
    assert "failed: b" in capsys.readouterr().err


def test_eval_refuses_two_regions_and_a_missing_folder(tiny_bundle, frames, capsys):
    both = ("--roi", "0,0,9,9", "--roi-from", frames / "regions")
    assert run("eval", tiny_bundle, frames / "images", "--truth", frames / "truth", *both) == 2
    assert run("eval", tiny_bundle, frames / "images", "--truth", frames / "nothing") == 2
    assert capsys.readouterr().err.count("error: ") == 2


def test_verify_certifies_and_finds_an_altered_file(tiny_bundle, frames, tmp_path, capsys):
    import shutil

    certificate = tmp_path / "certificate.json"
    assert run("verify", tiny_bundle, "--image", frames / "images" / "a.png", "--json", certificate) == 0
    (found,) = json.loads(certificate.read_text())
    assert found["masks"] == found["identical_rles"] + found["ties"]
    assert found["different"] == found["label_differences"] == 0
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    data = bytearray((copy / "decoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "decoder.onnx").write_bytes(data)
    assert run("verify", copy) == 2
    assert "altered or damaged" in capsys.readouterr().err


def test_verify_tells_what_tensorrt_would_refuse(tiny_bundle, tmp_path, capsys):
    import shutil

    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    assert run("verify", copy) == 0
    assert "TensorRT" not in capsys.readouterr().out
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["models"]["encoder"]["tensorrt"] = ["NonZero: the size follows from the values of image"]
    (copy / "bundle.json").write_bytes(sealed(manifest))
    assert run("verify", copy) == 0
    assert "\n    TensorRT would refuse: NonZero: the size follows" in capsys.readouterr().out


def test_devices_are_for_those_that_have_them(tiny_bundle, frames, capsys):
    places = ("--truth", frames / "truth")
    assert run("eval", tiny_bundle, frames / "images", *places, "--provider", "openvino", "--device", "0") == 2
    assert run("verify", tiny_bundle, "--device", "2") == 2
    errors = capsys.readouterr().err
    assert "provider 'openvino:0': " in errors
    assert "provider 'cpu:2': " in errors
