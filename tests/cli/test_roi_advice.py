"""A bundle that was made for regions of interest says so, once, where it gets whole frames."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrt.runtime.bundle.bundle import MANIFEST
from maskrt.runtime.bundle.seal import sealed

Maskrt = Callable[..., tuple[int, str, str]]
COMMANDS = pytest.mark.parametrize("command", ["run", "eval"])
KINDS = pytest.mark.parametrize("kind", ["soss", "two_stage"])


@pytest.fixture
def ward(tmp_path: Path, rng: np.random.Generator) -> Path:
    """images/, truth/ and regions/ of three pictures."""
    folder = tmp_path / "ward"
    for name in ("images", "truth", "regions"):
        (folder / name).mkdir(parents=True)
    truth = np.zeros((60, 80), np.uint8)
    truth[10:40, 20:60] = 255
    for stem in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(folder / "images" / f"{stem}.png")
        Image.fromarray(truth).save(folder / "truth" / f"{stem}.png")
        (folder / "regions" / f"{stem}.json").write_text('{"roi_xywh": [5, 5, 70, 50]}')
    return folder


@pytest.fixture
def call(maskrt: Maskrt, ward: Path, tmp_path: Path) -> Callable[..., str]:
    """call(command, bundle, *options) -> what it says on stderr."""

    def run(command: str, bundle: Path, *options: object) -> str:
        more = ("--out", tmp_path / "out") if command == "run" else ("--truth", ward / "truth")
        code, out, err = maskrt(command, bundle, ward / "images", *more, *options)
        assert code == 0, out + err
        return err

    return run


def declaring(bundle: Path, copy: Path) -> Path:
    """The same bundle, whose models were trained on regions."""
    folder = Path(shutil.copytree(bundle, copy))
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_bytes(sealed({**manifest, "roi_expected": True}))
    return folder


@COMMANDS
@KINDS
def test_whole_frames(
    call: Callable[..., str], tiny_bundles: dict[str, Path], tmp_path: Path, command: str, kind: str
) -> None:
    bundle = declaring(tiny_bundles[kind], tmp_path / "bundle")
    (line,) = call(command, bundle).splitlines()  # once, and not for each of three frames
    assert str(bundle) in line
    assert "regions of interest" in line
    assert "--roi or --roi-from" in line


@COMMANDS
@KINDS
def test_no_advice(
    call: Callable[..., str], tiny_bundles: dict[str, Path], tmp_path: Path, ward: Path, command: str, kind: str
) -> None:
    assert call(command, tiny_bundles[kind]) == ""  # declares nothing
    bundle = declaring(tiny_bundles[kind], tmp_path / "bundle")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert call(command, bundle, "--roi", "5,5,70,50") == ""
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert call(command, bundle, "--roi-from", ward / "regions") == ""
