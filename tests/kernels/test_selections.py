"""The pixels that a refiner decodes: the kernel against its definition, and answers written out."""

from types import ModuleType

import numpy as np
import pytest

from maskrt.kernels.selections import cpu, reference
from maskrt.kernels.selections.reference import lattice, lattice_points, squares_of

IMPLEMENTATIONS = [cpu, reference]
SHAPES = [(1, 1), (1, 2), (1, 30), (30, 1), (2, 2), (9, 9), (16, 17), (33, 25), (7, 64)]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 10, 17])
@pytest.mark.parametrize("step", [1, 2, 5, 8])
def test_lattice(size: int, step: int) -> None:
    points = lattice(size, step)
    assert points.tolist() == sorted({*range(0, size, step), size - 1})
    mask = np.zeros((size, 4), np.bool_)
    mask[lattice_points(mask.shape, step)] = True
    assert np.flatnonzero(mask.any(axis=1)).tolist() == points.tolist()
    assert np.flatnonzero(mask.any(axis=0)).tolist() == lattice(4, step).tolist()
    assert squares_of(mask.shape, step) == (max(1, points.size - 1), max(1, lattice(4, step).size - 1))


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.3, 0.5])
@pytest.mark.parametrize("step", range(1, 10))
def test_settle_squares_is_its_definition(rng: np.random.Generator, blobs, step: int, margin: float) -> None:
    kept = set()
    for height, width in SHAPES:
        for sharpness in (1.0, 30.0):
            field = blobs(rng, height, width, 3)
            found = (1 / (1 + np.exp(-sharpness * np.clip(field, -2, 2)))).astype(np.float32)
            found[rng.random(found.shape) < 0.3] = 1.0
            decoded = rng.random(found.shape) < 0.3
            squares = rng.random(squares_of(found.shape, step)) < 0.8
            ours, theirs = (found.copy(), squares.copy()), (found.copy(), squares.copy())
            cpu.settle_squares(ours[0], decoded, step, margin, ours[1])
            reference.settle_squares(theirs[0], decoded, step, margin, theirs[1])
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])
            np.testing.assert_array_equal(ours[0][decoded], found[decoded])
            assert not (ours[1] & ~squares).any()
            kept |= set(ours[1][squares].tolist())
    assert kept == {True, False}


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_settle_squares_written_out(module: ModuleType) -> None:
    """Squares of 2 on 3 x 6: rows 0, 2, columns 0, 2, 4, 5. The first is sure, the second not, the third not seen."""
    found = np.full((3, 6), 0.5, np.float32)
    found[np.ix_([0, 2], [0, 2, 4, 5])] = [[0.9, 1.0, 0.1, 0.0], [0.9, 1.0, 0.1, 0.0]]
    decoded = np.zeros(found.shape, np.bool_)
    decoded[np.ix_([0, 2], [0, 2, 4, 5])] = True
    before, squares = found.copy(), np.array([[True, True, False]])
    module.settle_squares(found, decoded, 2, 0.125, squares)
    assert squares.tolist() == [[False, True, False]]
    expected = before.copy()
    expected[:, :2] = [[0.9, 0.95], [0.9, 0.95], [0.9, 0.95]]  # its last column, at 1.0, is the next square's
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The last square has its last row and column; a decoded pixel stays.
    squares, decoded[1, 5] = np.array([[False, True, True]]), True
    module.settle_squares(found, decoded, 2, 0.125, squares)
    assert squares.tolist() == [[False, True, False]]
    expected[1, 4] = 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_between_the_corners(module: ModuleType) -> None:
    found = np.zeros((5, 5), np.float32)
    found[np.ix_([0, 4], [0, 4])] = [[0.0, 0.25], [0.125, 0.5]]
    decoded, squares = np.zeros(found.shape, np.bool_), np.ones((1, 1), np.bool_)
    module.settle_squares(found, decoded, 4, 0.5, squares)
    assert not squares.any()
    y, x = np.mgrid[:5, :5] / 4
    expected = (1 - y) * x * 0.25 + y * ((1 - x) * 0.125 + x * 0.5)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_refuse_wrong_arguments(module: ModuleType) -> None:
    found, decoded, squares = np.zeros((5, 7), np.float32), np.zeros((5, 7), np.bool_), np.zeros((2, 3), np.bool_)
    for step in (0, -3):
        with pytest.raises(ValueError, match="is below 1"):
            module.settle_squares(found, decoded, step, 0.1, squares)
    for margin in (-0.1, 0.6, float("nan")):
        with pytest.raises(ValueError, match="margin"):
            module.settle_squares(found, decoded, 2, margin, squares)
    with pytest.raises(ValueError, match="found"):
        module.settle_squares(found.astype(np.float64), decoded, 2, 0.1, squares)
    with pytest.raises(ValueError, match="decoded"):
        module.settle_squares(found, decoded[:4].copy(), 2, 0.1, squares)
    with pytest.raises(ValueError, match="squares"):
        module.settle_squares(found, decoded, 2, 0.1, np.zeros((3, 3), np.bool_))
