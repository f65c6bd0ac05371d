"""Two-stage segmentation's work on patches: the kernels against their definitions, and answers written out."""

from types import ModuleType

import numpy as np
import pytest

from maskrt.kernels.patches import cpu, reference
from maskrt.kernels.patches.reference import STEP, grid_of, ramp_weights

IMPLEMENTATIONS = [cpu, reference]
# Of a map, and of the picture that it is resized to.
SIZES = [
    ((1, 1), (1, 1)),
    ((1, 1), (50, 3)),
    ((9, 16), (70, 128)),
    ((12, 7), (96, 53)),
    ((8, 8), (5, 6)),
    ((4, 4), (4, 4)),
]


def corners_in(rng: np.random.Generator, count: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Anywhere; the first ones in the picture's corners."""
    found = rng.integers(0, size_hw, (count, 2))
    found[:2] = np.array([[0, 0], [size_hw[0] - 1, size_hw[1] - 1]])[:count]
    return found


@pytest.mark.parametrize(("low_hw", "size_hw"), SIZES)
@pytest.mark.parametrize("side", [1, 7, 32, 200])
def test_patch_means_are_their_definition(
    rng: np.random.Generator, low_hw: tuple[int, int], size_hw: tuple[int, int], side: int
) -> None:
    for planes, spread in ((0, 1.0), (1, 1.0), (3, 10.0)):
        values = (spread * rng.standard_normal((planes, *low_hw))).astype(np.float32)
        found, expected = np.full((2, planes, *grid_of(size_hw, side)), np.nan)
        cpu.patch_means(values, size_hw, side, found)
        reference.patch_means(values, size_hw, side, expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=spread * 1e-6)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_patch_means_written_out(module: ModuleType) -> None:
    """2 x 3 to 2 x 3, patches of 2: the last one has a single column, and nothing beside it counts."""
    values, out = np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.empty((1, 1, 2))
    module.patch_means(values, (2, 3), 2, out)
    assert out.tolist() == [[[2.0, 3.5]]]
    # 1 x 2 to 1 x 4: 0, 1/4, 3/4, 1 times the step of 8.
    ramp, halves = np.array([[[0, 8]]], np.float32), np.empty((1, 1, 2))
    module.patch_means(ramp, (1, 4), 2, halves)
    assert halves.tolist() == [[[1.0, 7.0]]]


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_patch_means_of_one_value_are_equal(module: ModuleType) -> None:
    """As far as they are looked at: a picture without any contrast is no matter of rounding."""
    for value in (0.0, 0.3, 1.0):
        out = np.empty((1, *grid_of((431, 768), 96)))
        module.patch_means(np.full((1, 54, 96), value, np.float32), (431, 768), 96, out)
        assert len(set(np.rint(out.ravel() / STEP))) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_gather_patches_is_its_definition(rng: np.random.Generator, channels: int) -> None:
    for size_hw in ((1, 1), (40, 61), (9, 100)):
        picture = rng.integers(0, 256, (*size_hw, channels), dtype=np.uint8)
        table = rng.standard_normal((channels, 256)).astype(np.float32)
        for count, patch_hw in ((0, (4, 4)), (1, (64, 128)), (2, (1, 1)), (9, (32, 32)), (5, (3, 17))):
            corners = corners_in(rng, count, size_hw)
            found, expected = np.full((2, count, channels, *patch_hw), np.nan, np.float32)
            cpu.gather_patches(picture, corners, table, found)
            reference.gather_patches(picture, corners, table, expected)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_gather_patches_written_out(module: ModuleType) -> None:
    picture = np.array([[[1], [2], [3]], [[4], [5], [6]]], np.uint8)
    table = np.arange(256, dtype=np.float32)[None] - 10
    out = np.empty((2, 1, 2, 2), np.float32)
    module.gather_patches(picture, np.array([[0, 1], [1, 2]]), table, out)
    assert out.tolist() == [[[[-8, -7], [-5, -4]]], [[[-4, -10], [-10, -10]]]]


@pytest.mark.parametrize("ramp", [0, 1, 4, 16, 40])
def test_blend_patches_is_its_definition(rng: np.random.Generator, ramp: int) -> None:
    for size_hw in ((1, 1), (50, 70), (9, 100), (16, 16)):
        for planes, count, side in ((1, 0, 8), (1, 1, 16), (3, 7, 16), (2, 12, 1), (1, 3, 33)):
            patches, below = (
                rng.random((count, planes, side, side), np.float32),
                rng.random((planes, *size_hw), np.float32),
            )
            corners = corners_in(rng, count, size_hw)
            found, expected = below.copy(), below.copy()
            cpu.blend_patches(patches, corners, ramp, found)
            reference.blend_patches(patches, corners, ramp, expected)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_without_a_ramp_patches_replace(module: ModuleType, rng: np.random.Generator) -> None:
    """Bit for bit, apart from each other; the last ones reach over the border."""
    size_hw, side = (20, 27), 8
    corners = np.stack(np.unravel_index(np.arange(12), grid_of(size_hw, side)), axis=1) * side
    patches, below = rng.random((12, 2, side, side), np.float32), rng.random((2, *size_hw), np.float32)
    chosen = rng.permutation(12)[:5]
    found, expected = below.copy(), below.copy()
    module.blend_patches(patches[chosen], corners[chosen], 0, found)
    for n in chosen:
        y, x = corners[n]
        under = expected[:, y : y + side, x : x + side]
        under[:] = patches[n, :, : under.shape[1], : under.shape[2]]
    np.testing.assert_array_equal(found, expected)
    assert (found != below).any(axis=0).sum() == sum(
        (min(side, size_hw[0] - y)) * min(side, size_hw[1] - x) for y, x in corners[chosen]
    )


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_blend_patches_written_out(module: ModuleType) -> None:
    """Patches of 4 with a ramp of 2 on a row of 6: one at the left border, one at the right one."""
    corners = np.array([[0, 0], [0, 2]])
    patches = np.zeros((2, 1, 4, 4), np.float32)
    patches[0], patches[1] = 1, 3
    out = np.full((1, 1, 6), 10, np.float32)
    module.blend_patches(patches, corners, 2, out)
    # Weights 1 1 .75 .25 and .25 .75 1 1: they sum to 1 where the two overlap.
    np.testing.assert_array_equal(out, np.array([[[1, 1, 1.5, 2.5, 3, 3]]], np.float32))
    alone = np.full((1, 1, 6), 10, np.float32)
    module.blend_patches(patches[:1], corners[:1], 2, alone)
    np.testing.assert_array_equal(alone, np.array([[[1, 1, 0.75 + 2.5, 0.25 + 7.5, 10, 10]]], np.float32))


def test_weights_fall_towards_borders_inside_only() -> None:
    rows, columns = ramp_weights(np.array([[0, 3], [5, 0]]), 4, 4, (9, 10))
    assert rows.tolist() == [[0.875, 0.625, 0.375, 0.125], [0.125, 0.375, 0.625, 0.875]]
    assert columns.tolist() == [[0.125, 0.375, 0.375, 0.125], [0.875, 0.625, 0.375, 0.125]]
    assert (np.array(ramp_weights(np.array([[2, 3]]), 4, 0, (9, 10))) == 1).all()
    # A window larger than the picture has no border inside.
    assert (np.array(ramp_weights(np.array([[0, 0]]), 16, 4, (9, 10))) == 1).all()


@pytest.mark.parametrize("side", [1, 3, 8, 50])
def test_choose_windows_is_its_definition(rng: np.random.Generator, blobs, side: int) -> None:
    counts = set()
    for size_hw in ((1, 1), (1, 30), (25, 18), (40, 40)):
        smooth = np.clip(blobs(rng, *size_hw), 0, 1).astype(np.float64)
        for uncertainty in (smooth, rng.random(size_hw), rng.integers(0, 2, size_hw).astype(np.float64)):
            for count, least in ((0, 0.1), (1, 0.9), (5, 0.01), (60, 0.3)):
                found = cpu.choose_windows(uncertainty, side, count, least)
                expected = reference.choose_windows(uncertainty, side, count, least)
                assert found.dtype == expected.dtype == np.int64
                assert found.tolist() == expected.tolist()
                counts.add(len(found))
    assert len(counts) > 2 or side == 50  # wider than any: one window sees all


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_choose_windows_written_out(module: ModuleType) -> None:
    uncertainty = np.array([[0, 0.5, 0.5, 0], [0, 0.5, 0.75, 0], [0.25, 0, 0, 0.25]])
    # The lower window of the two columns has 1.25 less than the upper one's 2.25; then equal ones, the left first.
    assert module.choose_windows(uncertainty, 2, 9, 0.06).tolist() == [[0, 1], [1, 0], [1, 2]]
    assert module.choose_windows(uncertainty, 2, 2, 0.06).tolist() == [[0, 1], [1, 0]]
    assert module.choose_windows(uncertainty, 2, 9, 0.07).tolist() == [[0, 1]]
    assert module.choose_windows(np.zeros((3, 4)), 2, 9, 0.01).shape == (0, 2)
    assert module.choose_windows(np.ones((2, 2)), 5, 9, 0.5).tolist() == [[0, 0]]


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_refuse_wrong_arguments(module: ModuleType) -> None:
    values, out = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2))
    with pytest.raises(ValueError, match="out"):
        module.patch_means(values, (9, 8), 4, out)
    for size_hw, side in (((0, 8), 4), ((8, 8), 0)):
        with pytest.raises(ValueError, match="no pixels"):
            module.patch_means(values, size_hw, side, out)
    picture, table, corner = np.zeros((4, 5, 3), np.uint8), np.zeros((3, 256), np.float32), np.zeros((1, 2), np.int64)
    patch = np.zeros((1, 3, 2, 2), np.float32)
    with pytest.raises(ValueError, match="table"):
        module.gather_patches(picture, corner, table[:1], patch)
    with pytest.raises(ValueError, match="corners"):
        module.gather_patches(picture, corner.astype(np.int32), table, patch)
    for outside in ([[4, 0]], [[0, 5]], [[-1, 0]]):
        with pytest.raises(ValueError, match="leaves a picture"):
            module.gather_patches(picture, np.array(outside), table, patch)
        with pytest.raises(ValueError, match="leaves a picture"):
            module.blend_patches(patch, np.array(outside), 0, np.zeros((3, 4, 5), np.float32))
    with pytest.raises(ValueError, match="found"):
        module.blend_patches(patch[..., :1].copy(), corner, 0, np.zeros((3, 4, 5), np.float32))
    with pytest.raises(ValueError, match="ramp"):
        module.blend_patches(patch, corner, -1, np.zeros((3, 4, 5), np.float32))
    for uncertainty in (np.full((2, 2), 1.5), np.full((2, 2), np.nan), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="0 to 1"):
            module.choose_windows(uncertainty, 1, 1, 0.1)
    for side, least in ((0, 0.1), (1, 0.0)):
        with pytest.raises(ValueError, match="side"):
            module.choose_windows(np.zeros((2, 2)), side, 1, least)
