"""`maskrt refine`, `eval --masks` and `export refiner`, on a tiny refiner."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrt.cli.main import main
from maskrt.kernels import sets
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import RefineManifest
from maskrt.runtime.bundle.specs import RefinementSpec
from maskrt.runtime.evaluation.refine_metrics import RefineScores
from maskrt.runtime.pipelines.refine.pipeline import open_refiner, refine_labels
from maskrt.runtime.pipelines.refine.refiner import Refiner

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """run(command, *arguments) -> exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(part) for part in arguments])
        output = capfd.readouterr()
        return int(stopped.value.code or 0), output.out, output.err

    return call


@pytest.fixture
def folders(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three pictures with a block, rough masks beside it, and the truth."""
    for name in ("images", "masks", "truth"):
        (tmp_path / name).mkdir()
    for index in range(3):
        rgb = rng.integers(20, 60, (40, 60, 3), dtype=np.uint8)
        truth = np.zeros((40, 60), np.uint8)
        truth[10:30, 15 + 4 * index : 40 + 4 * index] = 255
        rgb[truth > 0] += 150
        Image.fromarray(rgb).save(tmp_path / "images" / f"bed_{index}.png")
        Image.fromarray(truth).save(tmp_path / "truth" / f"bed_{index}.png")
        Image.fromarray(np.roll(truth, 3, axis=1)).save(tmp_path / "masks" / f"bed_{index}.png")
    return tmp_path


@pytest.fixture
def refine(run: Run, folders: Path, refiner_bundle: Path) -> Run:
    """refine(*options) on the folders, into out."""

    def call(*options: object, bundle: Path = refiner_bundle) -> tuple[int, str, str]:
        masks, out = ("--masks", folders / "masks"), ("--out", folders / "out")
        return run("refine", bundle, folders / "images", *masks, *out, *options)

    return call


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def lines_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_a_folder(refine: Run, folders: Path, refiner_bundle: Path) -> None:
    out = folders / "out"
    assert refine("--write", "mask,overlay,probability,label") == (0, f"3 done, 0 skipped, 0 failed: {out}\n", "")
    assert sorted(path.name for path in out.iterdir()) == ["label", "mask", "overlay", "probability", "results.jsonl"]
    with open_refiner(open_bundle(refiner_bundle)) as refiner:
        rgb, rough = pixels(folders / "images/bed_1.png"), pixels(folders / "masks/bed_1.png") > 0
        expected = refiner(rgb, rough)
    sure = np.abs(expected.probability - 0.5) > 1e-4
    np.testing.assert_array_equal((pixels(out / "mask/bed_1.png") == 255)[sure], expected.mask[sure])
    np.testing.assert_array_equal(pixels(out / "label/bed_1.png") * 255, pixels(out / "mask/bed_1.png"))
    probability = pixels(out / "probability/bed_1.png") / 65535
    np.testing.assert_allclose(probability, expected.probability, rtol=0, atol=1e-4)
    assert pixels(out / "overlay/bed_1.png").shape == (40, 60, 3)
    line = lines_of(out)[1]
    assert (line["source"], line["status"], line["roi_xywh"]) == ("bed_1", "ok", [0, 0, 60, 40])
    assert set(line["timings_ms"]) == {"backbone", "fusion", "decode"}


def test_resume_and_changed_masks(refine: Run, folders: Path) -> None:
    assert refine()[0] == 0
    code, _, err = refine()
    assert code == 2
    assert "holds an earlier run: add --resume" in err
    (folders / "out/mask/bed_2.png").unlink()
    assert refine("--resume")[1].startswith("1 done, 2 skipped, 0 failed")
    assert refine("--resume")[1].startswith("0 done, 3 skipped, 0 failed")
    before = (folders / "out/mask/bed_0.png").read_bytes()
    mask = np.zeros((40, 60), np.uint8)
    Image.fromarray(mask).save(folders / "masks/bed_0.png")
    code, out, err = refine("--resume")
    assert (code, out[:17]) == (0, "3 done, 0 skipped")
    assert "3 images were done with another bundle, other masks or other options: doing them again" in err
    assert (folders / "out/mask/bed_0.png").read_bytes() != before
    assert not pixels(folders / "out/mask/bed_0.png").any()
    assert refine("--resume", "--select", "strided:4")[1].startswith("3 done, 0 skipped")


def test_some_masks_are_missing_or_do_not_fit(refine: Run, folders: Path) -> None:
    (folders / "masks/bed_0.png").unlink()
    Image.new("L", (40, 60), 255).save(folders / "masks/bed_1.png")
    code, out, err = refine()
    assert (code, out) == (3, f"1 done, 0 skipped, 2 failed: {folders / 'out'}\n")
    assert "failed: bed_0: " in err
    assert "bed_0.png: no such file" in err
    assert "failed: bed_1: the picture is 60 x 40, its mask has shape [60, 40]" in err
    lines = lines_of(folders / "out")
    assert [line["status"] for line in lines] == ["failed", "failed", "ok"]
    assert "no such file" in lines[0]["reason"]
    assert [path.name for path in (folders / "out/mask").iterdir()] == ["bed_2.png"]


def test_class_numbers(refine: Run, folders: Path, refiner_bundle: Path) -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[5:25, 5:35], labels[20:38, 25:55] = 1, 3
    for index in range(3):
        Image.fromarray(labels).save(folders / f"masks/bed_{index}.png")
    code, _, err = refine()
    assert code == 3
    assert err.count("the brightest value is 3: a mask has 255; use --labels for class numbers") == 3
    code, out, _ = refine("--labels", "--write", "label", "--resume")
    assert (code, out[:6]) == (0, "3 done")
    with open_refiner(open_bundle(refiner_bundle)) as refiner:
        expected, _, _ = refine_labels(refiner, pixels(folders / "images/bed_0.png"), labels)
    found = pixels(folders / "out/label/bed_0.png")
    assert (found != expected).mean() < 0.001
    assert set(np.unique(found)) <= {0, 1, 3}
    assert found.any()


@pytest.mark.parametrize("options", [("--select", "strided:4"), ("--select", "adaptive"), ("--tile", "16")])
def test_selections_and_tiles(refine: Run, folders: Path, options: tuple[str, ...]) -> None:
    assert refine(*options)[:2] == (0, f"3 done, 0 skipped, 0 failed: {folders / 'out'}\n")


def test_a_memory_limit_that_is_too_small(refine: Run) -> None:
    code, _, err = refine("--memory-limit", 1)
    assert code == 3
    assert err.count("memory limit 1 MB: a picture of 124 x 104 takes 3") == 3
    assert "allow that much, or make the picture smaller" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--select", "strided"), "expected full, bbox, contour, strided:N"),
        (("--select", "strided:1"), "the stride must be 2 to 64"),
        (("--select", "off"), "select is off"),
        (("--tile", "8"), "8 is not in the range"),
        (("--memory-limit", "0"), "0 is not in the range"),
        (("--write", "mask,video"), "cannot write video"),
    ],
)
def test_options_that_cannot_be_used(refine: Run, folders: Path, options: tuple[str, ...], message: str) -> None:
    code, out, err = refine(*options)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert not (folders / "out").exists()


def test_bundles_and_folders_of_the_wrong_kind(
    run: Run, refine: Run, folders: Path, tiny_bundle: Path, refiner_bundle: Path
) -> None:
    code, _, err = refine(bundle=tiny_bundle)
    assert code == 2
    assert "takes a bundle with a refiner, which maskrt export refiner makes" in err
    code, _, err = run("run", refiner_bundle, folders / "images", "--out", folders / "out")
    assert code == 2
    assert "holds a refiner alone: use it with maskrt refine" in err
    code, _, err = refine("--masks", folders / "nowhere")
    assert code == 2
    assert "nowhere: no such folder; it should hold a STEM.png per image" in err
    assert not (folders / "out").exists()


def test_eval_scores_a_refiner(run: Run, folders: Path, sure_refiner_bundle: Path) -> None:
    common = (
        "eval",
        sure_refiner_bundle,
        folders / "images",
        "--truth",
        folders / "truth",
        "--masks",
        folders / "masks",
    )
    code, out, _ = run(*common, "--json", folders / "scores.json")
    assert code == 0
    assert "3 images; 100.0% of the pixels decoded" in out
    report = json.loads((folders / "scores.json").read_text())
    assert (report["images"], report["failed"], report["decoded_fraction"]) == (3, [], 1.0)
    scores = {"rough": RefineScores(), "refined": RefineScores()}
    with open_refiner(open_bundle(sure_refiner_bundle)) as refiner:
        for index in range(3):
            name = f"bed_{index}.png"
            truth, rough = pixels(folders / "truth" / name) > 0, pixels(folders / "masks" / name) > 0
            scores["rough"].add(truth, rough)
            scores["refined"].add(truth, refiner(pixels(folders / "images" / name), rough).mask)
    for name, expected in scores.items():
        assert report[name] == pytest.approx(
            {"iou": expected.iou, "dice": expected.dice, "mba": expected.mba}, abs=2e-3
        )
        assert f"{100 * report[name]['iou']:.2f}" in out
        assert f"{100 * report[name]['mba']:.2f}" in out
    assert report["rough"]["iou"] == pytest.approx(22 / 28)
    (folders / "masks/bed_0.png").unlink()
    (folders / "truth/bed_1.png").unlink()
    code, out, err = run(*common, "--set", "select=strided:4", "--json", folders / "scores.json")
    assert code == 3
    assert "1 images; " in out
    report = json.loads((folders / "scores.json").read_text())
    assert [failure["source"] for failure in report["failed"]] == ["bed_0", "bed_1"]
    assert report["decoded_fraction"] < 1
    assert err.count("failed: ") == 2
    (folders / "masks/bed_2.png").unlink()
    assert run(*common, "--json", folders / "scores.json")[0] == 3
    report = json.loads((folders / "scores.json").read_text())
    assert (report["images"], report["decoded_fraction"]) == (0, None)


@pytest.mark.export
def test_export(run: Run, crm_spec: str, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    code, told, err = run(
        "export", "refiner", "--crm", crm_spec, "--out", out, "--set", "select=adaptive", "--note", "a note"
    )
    assert (code, err) == (0, "")
    assert "the cascade differs from PyTorch by at most" in told
    manifest = open_bundle(out).expect(RefineManifest)
    assert (manifest.refinement, manifest.note) == (RefinementSpec("adaptive"), "a note")
    assert run("export", "refiner", "--crm", crm_spec, "--out", out)[0] == 2
    for setting, message in (("points=3", "unknown field `points`"), ("select=x", "expected full, bbox")):
        code, _, err = run("export", "refiner", "--crm", crm_spec, "--out", tmp_path / "other", "--set", setting)
        assert code == 2
        assert message in err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("command", [("refine",), ("export", "refiner"), ("eval",)])
def test_help(run: Run, command: tuple[str, ...]) -> None:
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert "--crm" in out or "--masks" in out


@pytest.mark.parametrize("select", ["full", "strided:4", "adaptive", "contour"])
def test_verify_certifies_the_refiner(
    run: Run, folders: Path, refiner_bundle: Path, tmp_path: Path, select: str
) -> None:
    images, masks = ("--image", folders / "images"), ("--masks", folders / "masks")
    options = ("--set", f"select={select}", "--set", "tile=32", "--json", tmp_path / "c.json")
    code, out, _ = run("verify", refiner_bundle, *images, *masks, *options)
    assert code == 0
    assert "4 networks, sha256 as listed, all load on cpu" in out
    found = json.loads((tmp_path / "c.json").read_text())
    assert [certificate["source"] for certificate in found] == ["bed_0", "bed_1", "bed_2"]
    assert all(c["pixels"] == 2400 and c["different"] == 0 and c["largest"] < 1e-4 for c in found)
    assert out.count("2400 pixels") == 3


def test_verify_sees_a_refiner_that_differs(
    run: Run, folders: Path, refiner_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that answer with the opposite are told, and the exit code is 1."""
    original = sets.CPU.decode_pixels

    def wrong(*arguments: object) -> None:
        original(*arguments)
        out: Any = arguments[-1]
        np.subtract(1, out, out=out)

    monkeypatch.setattr(sets, "CPU", replace(sets.CPU, decode_pixels=wrong))
    monkeypatch.setattr(Refiner.__init__, "__defaults__", ("cpu", None, sets.CPU, True))
    code, out, _ = run("verify", refiner_bundle, "--image", folders / "images", "--masks", folders / "masks")
    assert code == 1
    assert " 0 different" not in out
