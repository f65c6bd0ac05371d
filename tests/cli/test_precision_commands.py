"""`maskrt export precisions`, and --precision where a bundle is run."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrt.cli.main import main

Run = Callable[..., tuple[int, str, str]]
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["segment_anything"] = None
from maskrt.cli.main import main
main(sys.argv[1:])
"""


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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ and truth/: two pictures with a bright block on a dark ground, and the block."""
    folder = tmp_path_factory.mktemp("ward")
    for name in ("images", "truth", "regions"):
        (folder / name).mkdir()
    for index in range(2):
        rgb, truth = np.full((60, 80, 3), 40 + index, np.uint8), np.zeros((60, 80), np.uint8)
        rgb[15:40, 20:55], truth[15:40, 20:55] = 203, 255
        Image.fromarray(rgb).save(folder / f"images/bed_{index}.png")
        Image.fromarray(truth).save(folder / f"truth/bed_{index}.png")
        (folder / f"regions/bed_{index}.json").write_text(json.dumps({"roi_xywh": [10, 5, 60, 50]}))
    return folder


@pytest.fixture(scope="module")
def lower(tiny_bundle: Path, folders: Path) -> Path:
    """Made where there is no PyTorch."""
    out = folders / "lower"
    arguments = ["export", "precisions", tiny_bundle, "--precision", "int8", "--calibrate", folders / "images"]
    arguments += ["--roi-from", folders / "regions", "--out", out]
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "segmenter.int8.onnx: 0.0 MB, off by " in done.stdout
    assert "int8: soss: mean IoU " in done.stdout
    assert done.stdout.endswith("verified\n")
    return out


def test_run_and_resume(run: Run, lower: Path, folders: Path, tmp_path: Path) -> None:
    command = ("run", lower, folders / "images", "--out", tmp_path / "out")
    assert run(*command, "--precision", "int8")[:2] == (0, f"2 done, 0 skipped, 0 failed: {tmp_path / 'out'}\n")
    lines = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert {line["settings"]["options"]["precision"] for line in lines} == {"int8"}
    assert run(*command, "--precision", "int8", "--resume")[1].startswith("0 done, 2 skipped")
    code, out, err = run(*command, "--resume")
    assert (code, out[:17]) == (0, "2 done, 0 skipped")
    assert "2 frames were done with another bundle, other masks or other options: doing them again" in err


@pytest.mark.parametrize("command", ["run", "eval", "verify", "refine"])
def test_a_precision_that_is_not_there(run: Run, lower: Path, folders: Path, tmp_path: Path, command: str) -> None:
    more = {
        "run": [folders / "images", "--out", tmp_path / "out"],
        "eval": [folders / "images", "--truth", folders / "truth"],
        "refine": [folders / "images", "--masks", folders / "truth", "--out", tmp_path / "out"],
    }
    code, out, err = run(command, lower, *more.get(command, []), "--precision", "fp16")
    assert (code, out) == (2, "")
    assert err == (
        f"error: {lower} has no fp16, it holds: fp32, int8; make it with maskrt export precisions {lower} "
        "--precision fp16 --calibrate IMAGES --out OTHER\n"
    )
    assert not (tmp_path / "out").exists()


def test_eval(run: Run, lower: Path, folders: Path, tmp_path: Path) -> None:
    scores = []
    for precision in ("fp32", "int8"):
        file = tmp_path / f"{precision}.json"
        command = ("eval", lower, folders / "images", "--truth", folders / "truth", "--json", file)
        assert run(*command, "--precision", precision)[0] == 0
        scores.append(json.loads(file.read_text())["pooled"]["soss"]["iou"])
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


def test_verify(run: Run, lower: Path, folders: Path, tmp_path: Path) -> None:
    file = tmp_path / "certificate.json"
    code, out, _ = run("verify", lower, "--precision", "int8", "--image", folders / "images", "--json", file)
    assert code == 0
    assert "segmenter: max relative error " in out
    assert "encoder: as given" in out
    assert "int8 at export: soss: mean IoU " in out
    assert "int8 on cpu: soss: mean IoU " in out
    (found,) = json.loads(file.read_text())
    assert (found["precision"], found["provider"], found["tolerance"]) == ("int8", "cpu", 0.98)
    assert found["agreement"]["soss"]["frames"] == 2


def test_verify_fails_below_the_tolerance(
    run: Run, lower: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskrt.runtime.bundle.manifest import Agreement
    from maskrt.runtime.evaluation import verify

    monkeypatch.setattr(verify, "agreements", lambda *_: {"soss": Agreement(2, 0.97, 0.9, 0.1)})
    assert run("verify", lower, "--precision", "int8", "--image", folders / "images")[0] == 1


def test_refused(run: Run, tiny_bundle: Path, folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("export", "precisions", tiny_bundle, "--calibrate", folders / "images", "--out", out, "--precision")
    for more, message in (
        (("fp8",), "error: --precision fp8: choose from fp16, int8; fp32 is always in the bundle"),
        (("fp16", "--keep", "nose"), "error: --keep nose: "),
        (("fp16", "--roi", "1,1,5,5", "--roi-from", "x"), "error: --roi and --roi-from exclude each other"),
        (("fp16", "--max-megapixels", "0.001"), "error: bed_0: "),
    ):
        code, _, err = run(*command, *more)
        assert code == 2
        assert err.startswith(message)
        assert not out.exists()
