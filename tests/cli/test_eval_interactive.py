"""maskrt eval-interactive, on sessions that draw disks around clicks."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_interactive import FakeOpener
from kind_bundles import FOLDERS
from PIL import Image

from maskrt.runtime.evaluation.clicks import CONFIGURATIONS

Maskrt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> FakeOpener:
    """A stand-in that the command opens in place of sessions, in this test alone."""
    opener = FakeOpener()
    monkeypatch.setitem(sys.modules, "maskrt.runtime.interactive.session", SimpleNamespace(open_interactive=opener))
    # Set first, so that the module with the stand-in is forgotten in the end, whatever was there before.
    monkeypatch.setitem(sys.modules, "maskrt.cli.click_runs", None)
    del sys.modules["maskrt.cli.click_runs"]
    return opener


@pytest.fixture
def bundle() -> Path:
    """The demo's; its networks are not loaded here."""
    return FOLDERS["interactive"]


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Five pictures with two objects each, and one with a small one."""
    rows, columns = np.mgrid[:40, :70]
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    for index in range(5):
        truth = np.zeros((40, 70), np.uint8)
        for label, x in ((1, 16), (2, 52)):
            truth[(rows - 20) ** 2 + (columns - x) ** 2 <= rng.integers(6, 15) ** 2] = label
        truth[0, 0] = 3 if index == 2 else 0
        Image.fromarray(rng.integers(0, 256, (40, 70, 3), np.uint8)).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(truth).save(tmp_path / "truth" / f"{index}.png")
    return tmp_path


def arguments(bundle: Path, folder: Path, out: str = "out") -> tuple[object, ...]:
    return "eval-interactive", bundle, folder / "images", "--truth", folder / "truth", "--out", folder / out


def without_seconds(file: Path) -> dict:
    report = json.loads(file.read_text())
    for sequence in report["sequences"]:
        del sequence["seconds_per_click"]
        for record in sequence["records"]:
            del record["seconds"]
    return report


def test_the_papers_table(maskrt: Maskrt, opener: FakeOpener, bundle: Path, folder: Path) -> None:
    report = folder / "report.json"
    settings = ("--set", "learning_rate=1e-5", "--set", "erosions=3", "--threads", "2")
    code, out, err = maskrt(*arguments(bundle, folder), "--table", "--json", report, *settings)
    assert code == 0
    assert "left out: 1 objects under --min-area 100 pixels" in err
    assert [s.options["learning_rate"] for s in opener.sessions] == [1e-5] * 8
    assert [s.options["cache_dir"] for s in opener.sessions] == [folder / "out" / "embeddings"] * 8
    assert [
        {name: s.options[name] for name in options}
        for s, options in zip(opener.sessions, CONFIGURATIONS.values(), strict=True)
    ] == list(CONFIGURATIONS.values())
    assert [s.images for s in opener.sessions] == [10] * 8  # once per image and limit
    found = json.loads(report.read_text())
    assert (found["images"], found["objects"], found["left_out"], found["failed"]) == (5, 10, 1, {})
    assert found["options"] == {"learning_rate": 1e-5, "erosions": 3}
    assert found["environment"]["threads"] == 2
    assert found["bundle_sha256"] == hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    assert [(s["configuration"], s["limit"]) for s in found["sequences"]] == [
        (name, limit) for name in CONFIGURATIONS for limit in ("20@85", "30@90")
    ]
    rows = (folder / "out" / "table.md").read_text().splitlines()
    assert rows[0].startswith("10 objects in 5 images. CA: step after each click, ")
    assert rows[1:3] == ["", "| CA | RM | CM | NoC 20@85 | FR 20@85 | NoC 30@90 | FR 30@90 |"]
    assert [tuple(cell.strip() for cell in row.split("|")[1:4]) for row in rows[4:]] == [
        ("", "", ""),
        ("R", "E", "x"),
        ("R", "", ""),
        ("C", "", ""),
        ("", "E", ""),
        ("", "", "x"),
        ("R", "", "x"),
        ("R", "U", "x"),
    ]
    complete = found["sequences"][2]
    assert rows[5].split("|")[4:6] == [f" {complete['noc']:.3f} ", f" {complete['fr_percent']:.2f} "]
    assert "NoC 30@90" in out
    assert f"{complete['noc']:.3f}" in out
    assert complete["steps"] == len(complete["records"]) == 10
    failed = [record["iou"] < 0.85 for record in complete["records"]]
    assert complete["failures"] == sum(failed)
    clicks = [20 if missed else record["clicks"] for missed, record in zip(failed, complete["records"], strict=True)]
    assert complete["noc"] == np.mean(clicks)


def test_the_protocol_of_the_later_code(maskrt: Maskrt, opener: FakeOpener, bundle: Path, folder: Path) -> None:
    report = folder / "report.json"
    chosen = ("--configs", "none,R+E+x", "--limits", "3@60", "--json", report)
    assert maskrt(*arguments(bundle, folder), *chosen)[0] == 0
    paper = json.loads(report.read_text())
    code, out, _ = maskrt(*arguments(bundle, folder, "later"), *chosen, "--protocol", "wseseg", "--table")
    later = json.loads(report.read_text())
    assert code == 0
    assert "10 objects in 5 images, wseseg" in out
    assert "5 images, wseseg. CA: " in (folder / "later" / "table.md").read_text()
    assert (paper["protocol"], paper["failed_objects"]) == ("paper", "accept")
    assert (later["protocol"], later["failed_objects"]) == ("wseseg", "skip")
    assert opener.sessions[-1].options["click_adaptation"] == "C"
    without = later["sequences"][0]
    assert without["failures"] == sum(record["clicks"] >= 3 for record in without["records"])
    assert paper["sequences"][0]["failures"] == sum(record["iou"] < 0.6 for record in without["records"])
    code, _, err = maskrt(*arguments(bundle, folder), *chosen, "--protocol", "wseseg")
    assert code == 2
    assert "choose another --out" in err


def test_a_stopped_evaluation_goes_on(maskrt: Maskrt, opener: FakeOpener, bundle: Path, folder: Path) -> None:
    chosen = ("--configs", "none,R+E+x", "--limits", "8@85")
    assert maskrt(*arguments(bundle, folder, "whole"), *chosen, "--json", folder / "whole.json")[0] == 0
    clicked = sum(session.clicked for session in opener.sessions)
    opener.stop_after = opener.sessions[1].clicked - 1
    code, _, err = maskrt(*arguments(bundle, folder), *chosen)
    assert code == 130
    assert f"interrupted: the same command again goes on from {folder / 'out'}" in err
    opener.stop_after = None
    opener.sessions.clear()
    assert maskrt(*arguments(bundle, folder), *chosen, "--json", folder / "again.json")[0] == 0
    assert without_seconds(folder / "again.json") == without_seconds(folder / "whole.json")
    assert 0 < sum(session.clicked for session in opener.sessions) < clicked / 2


def test_another_run_in_the_same_folder(maskrt: Maskrt, opener: FakeOpener, bundle: Path, folder: Path) -> None:
    common = (*arguments(bundle, folder), "--configs", "R", "--limits", "3@50")
    assert maskrt(*common)[0] == 0
    for further, field in (
        (("--set", "learning_rate=1e-5"), "options"),
        (("--provider", "cuda"), "provider"),
        (("--min-area", "5"), "min_area"),
    ):
        code, _, err = maskrt(*common, *further)
        assert code == 2
        assert err.splitlines()[0].startswith("left out: 1 objects")
        assert err.splitlines()[1:] == [
            f"error: {folder / 'out' / 'R-3@50.safetensors'} is from a run with another {field}: choose another --out"
        ]
    (folder / "images" / "4.png").unlink()
    assert "another pictures_sha256: choose another --out" in maskrt(*common)[2]


def test_single_pictures_that_are_bad_are_left_out(
    maskrt: Maskrt, opener: FakeOpener, bundle: Path, folder: Path
) -> None:
    (folder / "truth" / "0.png").unlink()
    Image.fromarray(np.ones((40, 71), np.uint8)).save(folder / "truth" / "1.png")
    chosen = ("--configs", "none", "--limits", "2@50", "--json", folder / "report.json")
    code, out, err = maskrt(*arguments(bundle, folder), *chosen)
    assert code == 3
    assert "6 objects in 3 images" in out
    assert "failed: 0: " in err
    assert "failed: 1: " in err
    assert set(json.loads((folder / "report.json").read_text())["failed"]) == {"0", "1"}


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (("--configs", "R,Q"), "--configs R,Q: expected all, or some of none, R+E+x, R, C"),
        (("--configs", ","), "--configs ,: expected all"),
        (("--limits", "20"), "--limits 20: expected CLICKS@PERCENT, for example 20@85,30@90"),
        (("--limits", "0@85"), "limit 0@85: expected 1 or more clicks"),
        (("--limits", ","), "--limits is empty"),
        (("--protocol", "wseseg", "--failed", "accept"), "--protocol wseseg says what follows a failed object"),
        (("--set", "click_mask=true"), "--set click_mask: the configurations decide what is learnt from"),
        (("--min-area", "9999"), "no object to click on"),
        (("--truth", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    maskrt: Maskrt, opener: FakeOpener, bundle: Path, folder: Path, further: tuple[str, ...], message: str
) -> None:
    code, out, err = maskrt(*arguments(bundle, folder), *further)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert opener.sessions == []
    assert not (folder / "out").exists()


def test_steps_left_out_are_told(maskrt: Maskrt, opener: FakeOpener, bundle: Path, folder: Path) -> None:
    report = folder / "report.json"
    _, out, _ = maskrt(*arguments(bundle, folder), "--configs", "E", "--limits", "3@100", "--json", report)
    (sequence,) = json.loads(report.read_text())["sequences"]
    assert sequence["skipped_steps"] > 0
    assert f"E at 3@100: {sequence['skipped_steps']} steps were left out" in out
