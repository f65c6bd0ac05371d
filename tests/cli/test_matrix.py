"""Every command on a bundle of every kind: it works, or one line names the kind and says what to use instead."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kind_bundles import FOLDERS, write_refine_bundle
from PIL import Image

from maskrt.benchmarks.scenes.bedside import draw_scene, write_scene
from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.kinds.commands import COMMANDS, refusal
from maskrt.runtime.kinds.table import KINDS

Maskrt = Callable[..., tuple[int, str, str]]
NAME = "scene_900100"
ALL = frozenset(("soss", "refine", "two_stage", "interactive"))
FRAMES, CLICKS = frozenset(("soss", "two_stage")), frozenset(("interactive",))
REFINERS = frozenset(("soss", "refine"))  # the demo's SOSS bundle holds one


@dataclass(frozen=True)
class Ward:
    """One scene with all that a command may ask for, and a bundle of each kind."""

    folder: Path
    bundles: dict[str, Path]

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def truth(self) -> tuple[str, Path]:
        return "--truth", self.folder / "truth"

    @property
    def masks(self) -> tuple[str, Path]:
        return "--masks", self.folder / "rough"

    @property
    def regions(self) -> tuple[str, Path]:
        return "--roi-from", self.folder / "instances"

    @property
    def image(self) -> tuple[str, Path]:
        return "--image", self.images / f"{NAME}.png"


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    folder = tmp_path_factory.mktemp("matrix")
    scene = draw_scene(900100, (320, 180))
    write_scene(scene, NAME, folder)
    (folder / "rough").mkdir()
    Image.fromarray(np.roll(scene.truth, 3, axis=1).astype(np.uint8) * 255).save(folder / "rough" / f"{NAME}.png")
    bundles = {kind: shutil.copytree(path, folder / "bundles" / kind) for kind, path in FOLDERS.items()}
    bundles["refine"] = write_refine_bundle(folder / "bundles" / "refine")
    # Few points, as a user would export it for a small machine.
    manifest = bundles["soss"] / MANIFEST
    manifest.write_bytes(
        sealed(json.loads(manifest.read_text().replace('"points_per_side": 40', '"points_per_side": 6')))
    )
    return Ward(folder, bundles)


# Command -> its arguments behind the bundle, and the kinds that it takes.
CASES: dict[str, tuple[Callable[[Ward, Path], tuple[Any, ...]], frozenset[str]]] = {
    "run": (lambda ward, out: (ward.images, "--out", out, *ward.regions), FRAMES),
    "eval": (lambda ward, out: (ward.images, *ward.truth, *ward.regions), FRAMES),
    "eval --masks": (lambda ward, out: (ward.images, *ward.truth, *ward.masks), REFINERS),
    "verify": (lambda ward, out: (), ALL),
    "verify --image": (lambda ward, out: (*ward.image, "--roi", "60,20,90,70"), FRAMES),
    "verify --masks": (lambda ward, out: (*ward.image, *ward.masks), REFINERS),
    "inspect": (lambda ward, out: (), ALL),
    "export precisions": (
        lambda ward, out: (
            *("--precision", "fp16", "--calibrate", ward.images, "--out", out, "--tolerance", "0", *ward.masks),
            # One graph is enough here, and soon converted.
            *("--keep", "encoder,decoder,token_side,upscale,refiner_backbone,refiner_fusion,low"),
        ),
        ALL - CLICKS,
    ),
    "refine": (lambda ward, out: (ward.images, *ward.masks, "--out", out), REFINERS),
    "annotate": (lambda ward, out: (ward.images, "--out", out), CLICKS),
    "serve": (lambda ward, out: ("--port", "0", "--token", "none"), CLICKS),
    "eval-interactive": (
        lambda ward, out: (
            *(ward.images, "--truth", ward.folder / "instances", "--out", out),
            *("--limits", "1@85", "--configs", "none", "--min-area", "400"),
        ),
        CLICKS,
    ),
    "doctor": (lambda ward, out: (), ALL),
}


def arguments(ward: Ward, command: str, kind: str, out: Path) -> list[Any]:
    """The command line; `eval --masks` is `eval` with such an option."""
    words = [word for word in command.split() if not word.startswith("--")]
    given = CASES[command][0](ward, out)
    if command == "export precisions":  # names of networks that the bundle does not have are refused
        keep = given[-1].split(",")
        given = (*given[:-1], ",".join(role for role in keep if f'"{role}"' in _manifest(ward, kind)) or "weights")
    return [*words, ward.bundles[kind], *given]


def _manifest(ward: Ward, kind: str) -> str:
    return (ward.bundles[kind] / MANIFEST).read_text()


@pytest.fixture(autouse=True)
def servers_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`annotate` and `serve` load the bundle and listen; then they end."""
    monkeypatch.setattr("maskrt.runtime.annotate.server.serve", lambda *arguments: None)
    monkeypatch.setattr("maskrt.runtime.serve.server.serve", lambda *arguments: None)


@pytest.mark.parametrize("kind", sorted(ALL))
@pytest.mark.parametrize("command", CASES)
def test_a_command_on_a_kind(maskrt: Maskrt, ward: Ward, tmp_path: Path, command: str, kind: str) -> None:
    code, out, err = maskrt(*arguments(ward, command, kind, tmp_path / "out"))
    if kind in CASES[command][1]:
        assert code == 0, out + err
        return
    assert code == 2
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert f" kind {kind}" in line
    assert f"use it with {KINDS[kind].manifest.used_with}" in line or "export one with maskrt export refiner" in line
    assert not (tmp_path / "out" / "results.jsonl").exists()


@pytest.mark.parametrize("kind", sorted(ALL))
def test_engines_of_every_kind(tensorrt_device: Any, maskrt: Maskrt, ward: Ward, tmp_path: Path, kind: str) -> None:
    bundle = shutil.copytree(ward.bundles[kind], tmp_path / "bundle")
    code, out, err = maskrt("build", bundle, "--engine", "tensorrt")
    assert code == 0, out + err
    assert out.count(": built: ") >= 2


def test_the_table_of_commands_says_what_the_commands_do() -> None:
    """Doctor and the documents print that table."""
    assert set(CASES) | {"build"} == set(COMMANDS)
    assert set(KINDS) == ALL


def test_the_page_says_what_the_commands_do(ward: Ward) -> None:
    """docs/matrix.md, row by row."""
    lines = (Path(__file__).resolve().parents[2] / "docs" / "matrix.md").read_text().splitlines()
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|")
    kinds = [cell.strip("`") for cell in header[1:]]
    assert set(kinds) == ALL
    seen = set()
    for row in rows[: next(index for index, row in enumerate(rows) if row[0].startswith("**"))]:
        for command in (name.strip(" `").replace("--image --masks", "--masks") for name in row[0].split(",")):
            seen.add(command)
            for kind, cell in zip(kinds, row[1:], strict=True):
                if cell.startswith(("works", "with a refiner")):
                    assert refusal(open_bundle(ward.bundles[kind]), command) == "", (command, kind)
                if cell.startswith("refused"):
                    assert refusal(open_bundle(ward.bundles[kind]), command), (command, kind)
    assert seen == set(COMMANDS)
