"""maskrt eval --labels, on tiny bundles of two and of four classes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_two_stage import CLASSES, write_tiny_two_stage

from maskrt.runtime.kinds.open import open_pipeline

Maskrt = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_two_stage(tmp_path_factory.mktemp("bundles") / "four", classes=4)


@pytest.fixture
def folder(tmp_path: Path, four: Path, rng: np.random.Generator) -> Path:
    """images/, and truth/: what the bundle answers, but for a corner that is class 0."""
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    with open_pipeline(four) as pipeline:
        for stem in ("a", "b"):
            rgb = rng.integers(0, 256, (6, 10, 3), dtype=np.uint8).repeat(15, axis=0).repeat(15, axis=1)
            Image.fromarray(rgb).save(tmp_path / "images" / f"{stem}.png")
            label = pipeline(rgb).label.copy()
            label[:20, :20] = 0
            Image.fromarray(label).save(tmp_path / "truth" / f"{stem}.png")
    return tmp_path


def test_every_class_both_ways(four: Path, folder: Path, maskrt: Maskrt) -> None:
    truth, scores = folder / "truth", folder / "scores.json"
    code, out, err = maskrt("eval", four, folder / "images", "--truth", truth, "--labels", "--json", scores)
    assert code == 0, err
    assert "pooled over all pixels of 2 images" in out
    assert "per image, the mean over 2 images" in out
    report = json.loads(scores.read_text())
    assert (report["images"], report["failed"]) == (2, [])
    with open_pipeline(four) as pipeline:
        answers = [pipeline(np.asarray(Image.open(folder / "images" / f"{stem}.png"))).label for stem in "ab"]
    truths = [np.asarray(Image.open(truth / f"{stem}.png")) for stem in "ab"]
    both = list(zip(truths, answers, strict=True))
    ious = []
    for number, name in enumerate(CLASSES):
        hits = [int(((t == number) & (a == number)).sum()) for t, a in both]
        either = [int(((t == number) | (a == number)).sum()) for t, a in both]
        found = report["pooled"]["two_stage"]["classes"][name]["iou"]
        assert found == (pytest.approx(sum(hits) / sum(either)) if sum(either) else None)
        ious += [] if found is None else [found]
        own = [hit / one for hit, one in zip(hits, either, strict=True) if one]
        found = report["per_image"]["two_stage"]["classes"][name]["iou"]
        assert found == (pytest.approx(np.mean(own)) if own else None)
    assert report["pooled"]["two_stage"]["mean"]["iou"] == pytest.approx(np.mean(ious))
    assert 0 < report["pooled"]["two_stage"]["mean"]["iou"] < 1
    assert set(report["pooled"]) == {"stage_1", "two_stage"}


def test_unknown_numbers_fail_their_image(four: Path, folder: Path, maskrt: Maskrt) -> None:
    Image.fromarray(np.full((90, 150), 255, np.uint8)).save(folder / "truth" / "b.png")
    code, out, err = maskrt("eval", four, folder / "images", "--truth", folder / "truth", "--labels")
    assert code == 3
    assert "1 images" in out
    assert "b.png has the class numbers 255, and the bundle has 0 background, 1 lesion, 2 vessel, 3 optic disc: " in err


def test_class_numbers_are_no_mask_without_the_option(four: Path, folder: Path, maskrt: Maskrt) -> None:
    code, _, err = maskrt("eval", four, folder / "images", "--truth", folder / "truth")
    assert code == 3
    assert err.count("failed: ") == 2


def test_a_refiner_has_one_class(four: Path, folder: Path, maskrt: Maskrt) -> None:
    crm = Path(__file__).parents[2] / "export" / "demo" / "bundle"
    places = ("--truth", folder / "truth", "--masks", folder / "truth", "--labels")
    code, _, err = maskrt("eval", crm, folder / "images", *places)
    assert code == 2
    assert "leave --labels out" in err
