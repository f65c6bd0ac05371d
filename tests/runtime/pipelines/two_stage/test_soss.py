"""SOSS with two stages for its segmenter, and the profiles of engines."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tiny_two_stage import write_tiny_two_stage

import maskrt
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle, open_bundle
from maskrt.runtime.bundle.manifest import SossManifest, TwoStageManifest, encode_manifest
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec
from maskrt.runtime.engine_build.profiles import profile_of
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline
from maskrt.runtime.types import Result

ROI = (13, 7, 150, 90)


@pytest.fixture(scope="module")
def two_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_two_stage(tmp_path_factory.mktemp("bundles") / "two_stage")


@pytest.fixture
def rgb(rng: np.random.Generator) -> np.ndarray:
    squares = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return squares.repeat(15, axis=0).repeat(15, axis=1)


def soss_of_two_stages(tiny_bundle: Path, two_stage: Path, folder: Path, **changes: Any) -> Bundle:
    """The tiny SOSS with the tiny two stages in place of its segmenter."""
    shutil.copytree(tiny_bundle, folder)
    manifest = open_bundle(tiny_bundle).expect(SossManifest)
    stages = open_bundle(two_stage).expect(TwoStageManifest)
    entries = {role: entry for role, entry in manifest.models.items() if role != "segmenter"}
    for role in ("low", "high"):
        shutil.copyfile(two_stage / f"{role}.onnx", folder / f"{role}.onnx")
        entries[f"segmenter_{role}"] = stages.models[role]
    segmenter = msgspec.structs.replace(manifest.segmenter, classes=stages.classes)
    changed = {
        "models": entries,
        "segmenter": segmenter,
        "two_stage": stages.two_stage,
        "patch_selection": stages.patch_selection,
    }
    (folder / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(manifest, **(changed | changes))))
    return open_bundle(folder)


def test_soss_with_two_stages(tiny_bundle: Path, two_stage: Path, tmp_path: Path, rgb: np.ndarray) -> None:
    bundle = soss_of_two_stages(tiny_bundle, two_stage, tmp_path / "soss")
    assert isinstance(bundle.manifest, SossManifest)
    with (
        SossPipeline(with_settings(bundle, {"uncovered": "segmenter"})) as soss,
        TwoStagePipeline(open_bundle(two_stage)) as alone,
    ):
        branches, result = soss.branches(rgb, ROI), soss(rgb, ROI)
        (look,) = alone.segmenter.look([np.ascontiguousarray(rgb[7:97, 13:163])], {})
        np.testing.assert_array_equal(branches.probabilities, look.probabilities)
        assert result.mask.any()
        other = np.ascontiguousarray(rgb[::-1])
        for found, expected in zip(soss.batch([rgb, other], [ROI, None]), (result, soss(other)), strict=True):
            assert isinstance(found, Result)
            assert found.segments.rles == expected.segments.rles
            assert (found.label == expected.label).all()
    with SossPipeline(with_settings(bundle, {"windows": "off", "points_per_side": 3})) as off:
        assert (off.branches(rgb, ROI).probabilities != look.probabilities).any()
    assert with_settings(bundle, {"patches": 2}).expect(SossManifest).patch_selection.patches == 2
    with pytest.raises(InputError, match="patches of 16"):
        SossPipeline(with_settings(bundle, {"patches": 8}))
    # A SOSS of one stage knows no such option.
    for refused in (
        lambda: maskrt.open_pipeline(tiny_bundle, settings={"patches": 2}),
        lambda: with_settings(open_bundle(tiny_bundle), {"patches": 2}),
    ):
        with pytest.raises(BundleError, match="patches"):
            refused()


def test_soss_of_two_stages_has_the_segmenters_classes(tiny_bundle: Path, two_stage: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name different classes"):
        soss_of_two_stages(
            tiny_bundle, two_stage, tmp_path / "soss", segmenter=open_bundle(tiny_bundle).expect(SossManifest).segmenter
        )


def test_profiles_have_every_size_that_is_asked_for(two_stage: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Stage 1's sides are multiples of 32 up to a square's; a patch has one size."""
    dynamic = {"picture": (-1, 3, -1, -1)}
    bundle = with_settings(open_bundle(two_stage), {"patches": 2})
    assert profile_of(bundle, "low", dynamic) == {"picture": ((1, 3, 32, 32), (1, 3, 32, 32), (64, 3, 32, 32))}
    assert profile_of(bundle, "high", dynamic) == {"picture": ((1, 3, 64, 64), (2, 3, 64, 64), (64, 3, 64, 64))}
    assert profile_of(bundle, "high", {"picture": (1, 3, 64, 64)}) == {}
    large = write_tiny_two_stage(
        tmp_path / "large", size=4096, patch_selection=PatchSelectionSpec(patches=8, uncertainty=0.25)
    )
    sides = profile_of(open_bundle(large), "low", dynamic)["picture"]
    assert sides == ((1, 3, 32, 32), (1, 3, 512, 512), (4, 3, 512, 512))
    assert profile_of(open_bundle(large), "high", dynamic)["picture"][1:] == ((4, 3, 512, 512), (4, 3, 512, 512))
    soss = soss_of_two_stages(tiny_bundle, two_stage, tmp_path / "soss")
    assert profile_of(soss, "segmenter_low", dynamic) == profile_of(open_bundle(two_stage), "low", dynamic)
    assert profile_of(soss, "segmenter_high", dynamic) == profile_of(open_bundle(two_stage), "high", dynamic)
