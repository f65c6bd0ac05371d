"""A SOSS bundle whose segmenter has two stages."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle
from tiny_two_stage import write_tiny_two_stage

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from maskrt.benchmarks.reports.demo import BUNDLE
from maskrt.export.architectures.sam import SamConfig
from maskrt.export.bundles import soss
from maskrt.export.bundles.sams import WRITERS, read_sam
from maskrt.export.bundles.soss import export_soss
from maskrt.export.bundles.soss_segmenter import Wanted, write_segmenter
from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.bundle.manifest import DataFile, ModelEntry, SossManifest, encode_manifest
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.bundle.specs import MasksSpec
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.kinds.open import open_pipeline
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline
from maskrt.runtime.types import Report

SELECTION = PatchSelectionSpec(patches=4, patch_count=2)


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    return write_tiny_two_stage(tmp_path / "stages", patch_selection=SELECTION)


def demo_sam(folder: Path, spec: str, report: Report) -> tuple[dict[str, ModelEntry], SamConfig]:
    """As soss._export_sam, of the demo's SAM as it was exported: to do so again takes most of a minute."""
    demo = open_bundle(BUNDLE)
    for role in WRITERS:
        shutil.copyfile(demo.model_path(role), folder / demo.manifest.models[role].file)
    return {role: demo.manifest.models[role] for role in WRITERS}, read_sam(spec)[1]


def test_two_stages_in_soss(
    stages: Path, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soss, "_export_sam", demo_sam)
    lines: list[str] = []
    export_soss(
        f"two-stage:{stages}",
        f"custom:{BUNDLE.parent / 'weights' / 'sam.safetensors'}",
        tmp_path / "soss",
        classes=("skin", "occlusion"),
        masks=MasksSpec(points_per_side=3),
        report=lines.append,
    )
    assert "segmenter_low.onnx: low.onnx of stages as it is" in lines
    manifest = open_bundle(tmp_path / "soss").expect(SossManifest)
    assert manifest.patch_selection == SELECTION
    assert manifest.two_stage is not None
    assert manifest.two_stage.classes == manifest.classes == ("skin", "occlusion")
    assert "segmenter" not in manifest.models
    rgb = rng.integers(0, 256, (90, 120, 3), np.uint8)
    with open_pipeline(stages) as alone, open_pipeline(tmp_path / "soss") as both:
        assert isinstance(alone, TwoStagePipeline)
        assert isinstance(both, SossPipeline)
        (expected,) = alone.segmenter([rgb])
        np.testing.assert_array_equal(both.branches(rgb).probabilities, expected)
        assert both(rgb).label.shape == (90, 120)
    # Its settings are those of the segmenter too.
    with (
        open_pipeline(stages, settings={"windows": "off"}) as alone,
        open_pipeline(tmp_path / "soss", settings={"windows": "off"}) as both,
    ):
        assert isinstance(alone, TwoStagePipeline)
        assert isinstance(both, SossPipeline)
        (first,) = alone.segmenter([rgb])
        np.testing.assert_array_equal(both.branches(rgb).probabilities, first)
    assert not np.array_equal(first, expected)


@pytest.mark.parametrize("wanted", [Wanted((64, 64)), Wanted(mean=(0.5,) * 3), Wanted(std=(0.5,) * 3)])
def test_what_the_bundle_says_already_is_not_said_again(stages: Path, wanted: Wanted, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave them out"):
        write_segmenter(f"two-stage:{stages}", tmp_path, wanted, None, print)


def test_bundles_that_will_not_do(stages: Path, tmp_path: Path) -> None:
    def write(bundle: Path, classes: tuple[str, ...] | None = None) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)
        write_segmenter(f"two-stage:{bundle}", tmp_path / "out", Wanted(), classes, print)

    with pytest.raises(InputError, match="1 class names given"):
        write(stages, ("a",))
    with pytest.raises(BundleError, match=r"of kind soss and holds .*; this needs a two-stage segmenter"):
        write(write_tiny_bundle(tmp_path / "soss"))
    with pytest.raises(BundleError, match="is not a bundle"):
        write(tmp_path / "nothing")
    manifest = open_bundle(stages).manifest
    entry = manifest.models["high"]
    data = stages / f"{entry.file}.data"
    data.write_bytes(b"")
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    models = manifest.models | {"high": msgspec.structs.replace(entry, data=(DataFile(data.name, digest, 0),))}
    (stages / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(manifest, models=models)))
    with pytest.raises(InputError, match="keeps its weights in another file"):
        write(stages)
    manifest_text = json.loads((stages / MANIFEST).read_text())
    manifest_text["models"]["low"]["sha256"] = "0" * 64
    (stages / MANIFEST).write_bytes(sealed(manifest_text))
    with pytest.raises(BundleError, match="sha256 differs"):
        write(stages)
