"""A bundle is verified once: what takes an opened one reads no file's sha256 again."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maskrt
from maskrt.runtime.bundle.bundle import Bundle, open_bundle
from maskrt.runtime.bundle.manifest import Manifest
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.pipelines.refine.pipeline import open_refiner

RGB = np.zeros((40, 60, 3), np.uint8)
OPENERS: dict[str, Callable[[Bundle], AbstractContextManager[Any]]] = {
    "soss": lambda bundle: maskrt.open_pipeline(bundle, settings={"points_per_side": 2}),
    "two_stage": lambda bundle: maskrt.open_pipeline(bundle, settings={"patches": 2}),
    "refine": open_refiner,
    "interactive": lambda bundle: maskrt.open_interactive(bundle, settings={"learning_rate": 1e-5}),
}


@pytest.mark.parametrize("kind", OPENERS)
def test_an_opened_bundle_is_not_hashed_again(
    tiny_bundles: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = hashlib.file_digest

    def counted(file: Any, name: Any) -> Any:
        hashed.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    bundle = open_bundle(tiny_bundles[kind])
    files = [entry.file for entry in bundle.manifest.models.values()]
    assert sorted(hashed) == sorted(files)
    with OPENERS[kind](bundle):
        assert len(hashed) == len(files)


@pytest.mark.parametrize("kind", ["soss", "two_stage"])
def test_an_opened_bundle_answers_as_its_folder_does(tiny_bundles: dict[str, Path], kind: str) -> None:
    folder = tiny_bundles[kind]
    with maskrt.open_pipeline(folder, threads=1) as one, maskrt.open_pipeline(open_bundle(folder), threads=1) as other:
        assert one(RGB).label.tolist() == other(RGB).label.tolist()


@pytest.mark.parametrize("kind", ["refine", "interactive"])
def test_what_needs_more_than_frames_is_refused(tiny_bundles: dict[str, Path], kind: str) -> None:
    for given in (tiny_bundles[kind], open_bundle(tiny_bundles[kind])):
        with pytest.raises(BundleError, match=f"of kind {kind} and holds .*: use it with maskrt "):
            maskrt.open_pipeline(given)


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(tiny_bundles: dict[str, Path], threads: int) -> None:
    with pytest.raises(InputError, match=f"threads={threads}: give a whole number from 1 to 1024, or None"):
        maskrt.open_pipeline(tiny_bundles["two_stage"], threads=threads)


@pytest.mark.parametrize("roi", [(1.5, 0, 10, 10), (0, 0, 10), ("0", "0", "9", "9")])
def test_a_region_that_is_not_four_integers_is_the_frames_own_error(tiny_bundles: dict[str, Path], roi: Any) -> None:
    with maskrt.open_pipeline(tiny_bundles["two_stage"], threads=1) as pipeline:
        good, bad, nothing = pipeline.batch([RGB, RGB, None], [None, roi, None])  # type: ignore[list-item]
    assert isinstance(good, maskrt.Result)
    assert "expected four integers" in str(bad)
    assert "got NoneType" in str(nothing)


@pytest.mark.parametrize("tag", ["", 5])
def test_a_kind_without_a_name_is_refused(tag: str | int) -> None:
    class Untagged(Manifest, frozen=True, kw_only=True, tag=tag):
        pass

    with pytest.raises(InputError, match="Untagged has no tag to tell its bundles by"):
        maskrt.register_kind(maskrt.PipelineKind(Untagged))
