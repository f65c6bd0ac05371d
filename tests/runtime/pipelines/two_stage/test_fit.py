"""A region that is made square, as in the paper, or keeps its proportions."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tiny_two_stage import spec_of, write_tiny_two_stage

import maskrt
from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.bundle.manifest import TwoStageManifest
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec, TwoStageSpec, low_size, working_size
from maskrt.runtime.engines.axes import EVERY
from maskrt.runtime.pipelines.two_stage.sizes import stage_1_inputs

EIGHT = PatchSelectionSpec(patches=8)  # the document's Np
SIZES = [(90, 200), (200, 90), (1, 300), (300, 1), (1, 1), (256, 256)]


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_two_stage(
        tmp_path_factory.mktemp("bundles") / "square", fit="square", size=256, patch_selection=EIGHT
    )


@pytest.mark.parametrize("size_hw", SIZES)
def test_the_document_looks_at_8_of_64_patches_whatever_the_proportions(
    square: Path, rng: np.random.Generator, size_hw: tuple[int, int]
) -> None:
    rgb = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    with maskrt.open_pipeline(square, settings={"patch_fraction": None}) as pipeline:
        found = pipeline(rgb)
    assert found.mask.shape == size_hw
    assert found.stages is not None
    assert (found.stages.working_hw, found.stages.padded_hw) == ((256, 256), (256, 256))
    assert len(found.stages.windows_xywh) == 8
    with maskrt.open_pipeline(square, settings={"patch_fraction": 1.0}) as pipeline:
        every = pipeline(rgb).stages
    assert every is not None
    assert len(every.windows_xywh) == 64


def test_kept_proportions_leave_fewer_patches(tmp_path: Path, rng: np.random.Generator) -> None:
    """A region of 3:1 has 24 patches, of which 8 are looked at."""
    kept = write_tiny_two_stage(tmp_path / "kept", size=256, patch_selection=EIGHT)
    rgb = rng.integers(0, 256, (80, 240, 3), dtype=np.uint8)
    with maskrt.open_pipeline(kept, settings={"patch_fraction": 1.0}) as pipeline:
        stages = pipeline(rgb).stages
    assert stages is not None
    assert (stages.working_hw, len(stages.windows_xywh)) == ((85, 256), 24)


@pytest.mark.parametrize("windows", ["grid", "sliding"])
def test_windows_are_named_in_the_region(square: Path, rng: np.random.Generator, windows: str) -> None:
    """A window is 32 of 256 pixels both ways: 12.5 wide and 25 high in a region of 100 x 200."""
    rgb = rng.integers(0, 256, (200, 100, 3), dtype=np.uint8)
    with maskrt.open_pipeline(square, settings={"windows": windows}) as pipeline:
        stages = pipeline(rgb).stages
    assert stages is not None
    assert 0 < len(stages.windows_xywh) <= 8
    for left, top, width, height in stages.windows_xywh:
        assert width in (12, 13)
        assert height == 25
        assert 0 <= left <= 100 - width
        assert 0 <= top <= 200 - height


def test_a_stretched_region_has_the_mask_of_the_square_one(square: Path, rng: np.random.Generator) -> None:
    """A square picture whose rows are doubled and one whose columns are: the network sees the same picture."""
    cells = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    whole = cells.repeat(32, axis=0).repeat(32, axis=1)
    with maskrt.open_pipeline(square) as pipeline:
        expected = pipeline(whole).mask
        tall = pipeline(whole.repeat(2, axis=0)).mask
        wide = pipeline(whole.repeat(2, axis=1)).mask
    assert expected.any()
    assert not expected.all()
    # Pillow's filter mixes the two rows beside an edge, so a few pixels there may differ.
    assert np.mean(tall[::2] == expected) > 0.97
    assert np.mean(wide[:, ::2] == expected) > 0.97


def test_a_bundle_without_the_field_keeps_the_proportions(tmp_path: Path) -> None:
    bundle = write_tiny_two_stage(tmp_path / "old")
    content = json.loads((bundle / MANIFEST).read_text())
    content["two_stage"].pop("fit", None)
    (bundle / MANIFEST).write_bytes(sealed(content))
    assert open_bundle(bundle).expect(TwoStageManifest).two_stage.fit == "keep"


def test_an_unknown_fit_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'stretch'"):
        msgspec.convert(msgspec.to_builtins(spec_of(size=128)) | {"fit": "stretch"}, TwoStageSpec)


@pytest.mark.parametrize(
    ("fit", "size_hw", "working", "low", "rows"),
    [
        ("square", (720, 1280), (768, 768), (96, 96), (96, 96, 96)),
        ("square", (1, 1), (768, 768), (96, 96), (96, 96, 96)),
        ("keep", (720, 1280), (432, 768), (54, 96), (32, 96, 96)),
        ("keep", (1, 1280), (1, 768), (1, 96), (32, 96, 96)),
    ],
)
def test_sizes(fit: str, size_hw: Any, working: Any, low: Any, rows: Any) -> None:
    spec = spec_of(size=768, fit=fit)
    assert working_size(spec, size_hw) == working
    assert low_size(spec, working) == low
    assert stage_1_inputs(spec)[EVERY][2] == stage_1_inputs(spec)[EVERY][3] == rows
