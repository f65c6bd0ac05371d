"""The CUDA kernels of patches against their definitions, on a GPU or in the simulator: see test_cuda.py."""

import os
from pathlib import Path

import numpy as np
import pytest
from tiny_two_stage import write_tiny_two_stage

from maskrt.kernels import sets
from maskrt.kernels.patches.reference import grid_of
from maskrt.kernels.sets import REFERENCE, KernelSet
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline

pytestmark = [] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else [pytest.mark.gpu]


@pytest.fixture(scope="module")
def gpu() -> KernelSet:
    """The set under test."""
    return sets.cuda()


@pytest.mark.parametrize(("low_hw", "size_hw"), [((1, 1), (1, 1)), ((3, 4), (20, 31)), ((9, 7), (5, 4))])
def test_patch_means(
    gpu: KernelSet, rng: np.random.Generator, low_hw: tuple[int, int], size_hw: tuple[int, int]
) -> None:
    for side in (1, 6, 40):
        values = rng.standard_normal((2, *low_hw)).astype(np.float32)
        found, expected = np.full((2, 2, *grid_of(size_hw, side)), np.nan)
        gpu.patch_means(values, size_hw, side, found)
        REFERENCE.patch_means(values, size_hw, side, expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_gather_patches(gpu: KernelSet, rng: np.random.Generator, channels: int) -> None:
    picture = rng.integers(0, 256, (11, 9, channels), dtype=np.uint8)
    table = rng.standard_normal((channels, 256)).astype(np.float32)
    for count, hw in ((0, (3, 3)), (4, (5, 7)), (1, (16, 1))):
        corners = rng.integers(0, (11, 9), (count, 2))
        found, expected = np.full((2, count, channels, *hw), np.nan, np.float32)
        gpu.gather_patches(picture, corners, table, found)
        REFERENCE.gather_patches(picture, corners, table, expected)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("ramp", [0, 1, 3])
def test_blend_patches(gpu: KernelSet, rng: np.random.Generator, ramp: int) -> None:
    for count in (0, 1, 5):
        corners = rng.integers(0, (13, 9), (count, 2))
        corners[:1] = 0
        patches, below = rng.random((count, 2, 6, 6), np.float32), rng.random((2, 13, 9), np.float32)
        found, expected = below.copy(), below.copy()
        gpu.blend_patches(patches, corners, ramp, found)
        REFERENCE.blend_patches(patches, corners, ramp, expected)
        np.testing.assert_array_equal(found, expected)


def test_two_stages(gpu: KernelSet, rng: np.random.Generator, tmp_path: Path) -> None:
    rgb = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    bundle = open_bundle(
        write_tiny_two_stage(tmp_path / "two_stage", size=32, patch_selection=PatchSelectionSpec(patches=1))
    )
    for options in ({}, {"windows": "sliding"}):
        results = []
        for kernels in (gpu, sets.CPU):
            with TwoStagePipeline(with_settings(bundle, options), threads=1, kernels=kernels) as pipeline:
                results.append(pipeline(rgb))
        found, expected = results
        assert found.stages == expected.stages
        assert found.stages is not None
        assert found.stages.windows_xywh
        np.testing.assert_allclose(found.probability, expected.probability, rtol=0, atol=1e-5)


def test_refuses_wrong_arguments(gpu: KernelSet) -> None:
    """As the CPU's: the checks are the same functions."""
    out = np.empty((1, 6, 6), np.float32)
    with pytest.raises(ValueError, match="leaves a picture"):
        gpu.blend_patches(np.zeros((1, 1, 2, 2), np.float32), np.array([[0, 6]]), 0, out)
    picture, corner = np.zeros((5, 7, 3), np.uint8), np.zeros((1, 2), np.int64)
    with pytest.raises(ValueError, match="table"):
        gpu.gather_patches(picture, corner, np.zeros((1, 256), np.float32), np.zeros((1, 3, 2, 2), np.float32))
    with pytest.raises(ValueError, match="out"):
        gpu.patch_means(np.zeros((1, 2, 2), np.float32), (8, 8), 4, np.zeros((1, 2, 3)))
