"""The pixels that a refiner decodes: kernels against their definitions, and answers written out."""

from types import ModuleType

import numpy as np
import pytest

from maskrt.kernels.selections import cpu, reference
from maskrt.kernels.selections.reference import lattice, lattice_points, squares_of

IMPLEMENTATIONS = [cpu, reference]
SHAPES = [(1, 1), (1, 2), (1, 30), (30, 1), (2, 2), (9, 9), (16, 17), (33, 25), (7, 64)]


def rest_of(module: ModuleType, flipped: np.ndarray, step: int) -> np.ndarray:
    out = ~flipped
    module.strided_rest(flipped, step, out)
    return out


def drawn(text: str) -> np.ndarray:
    """A mask from rows of "." and "#"."""
    return np.array([[mark == "#" for mark in row] for row in text.split()])


@pytest.mark.parametrize("step", range(1, 10))
def test_strided_rest_is_its_definition_and_brute_force(rng: np.random.Generator, step: int) -> None:
    for height, width in SHAPES:
        for density in (0.0, 0.05, 0.5, 1.0):
            flipped = rng.random((height, width)) < density
            expected = np.zeros_like(flipped)
            rows, columns = lattice(height, step).tolist(), lattice(width, step).tolist()
            for y in range(height):
                for x in range(width):
                    ys = {max(r for r in rows if r <= y), min(r for r in rows if r >= y)}
                    xs = {max(c for c in columns if c <= x), min(c for c in columns if c >= x)}
                    on = y in rows and x in columns
                    expected[y, x] = not on and any(flipped[r, c] for r in ys for c in xs)
            for module in IMPLEMENTATIONS:
                np.testing.assert_array_equal(rest_of(module, flipped, step), expected)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_strided_rest_written_out(module: ModuleType) -> None:
    """The lattice of step 3 on 5 x 6: rows 0, 3, 4 and columns 0, 3, 5. Only (3, 3) flipped; (1, 1) is not read."""
    flipped = drawn("...... .#.... ...... ...#.. ......")
    expected = drawn("...... .####. .####. .##.#. ...#..")
    # Row 4 is of the lattice, and between rows there is nothing below row 3.
    expected[4] = False
    assert rest_of(module, flipped, 3).astype(int).tolist() == expected.astype(int).tolist()


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


@pytest.mark.parametrize("step", range(1, 10))
def test_unsettled_squares_is_its_definition(rng: np.random.Generator, blobs, step: int) -> None:
    kept = set()
    for height, width in SHAPES:
        for noise in (0.0, 0.02, 0.3):
            before = blobs(rng, height, width, 3) > 0
            after = before ^ (rng.random((height, width)) < noise)
            looked_at = rng.random(squares_of((height, width), step)) < 0.8
            found, expected = looked_at.copy(), looked_at.copy()
            cpu.unsettled_squares(before, after, step, found)
            reference.unsettled_squares(before, after, step, expected)
            np.testing.assert_array_equal(found, expected)
            assert not (found & ~looked_at).any()
            kept |= set(found[looked_at].tolist())
    assert kept == {True, False}


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_unsettled_squares_written_out(module: ModuleType) -> None:
    """Squares of 2 on 5 x 7: one with an island that came in, two beside a corner that flipped, one not looked at."""
    before = drawn("....... .#..... ....... ....... .......")
    after = before.copy()
    after[4, 4] = True
    after[3, 1] = True  # no corner: not read
    squares = np.ones((2, 3), np.bool_)
    module.unsettled_squares(before, after, 2, squares)
    assert squares.tolist() == [[True, False, False], [False, True, True]]
    squares[1, 1] = False
    module.unsettled_squares(before, after, 2, squares)
    assert squares.tolist() == [[True, False, False], [False, False, True]]
    # All corners flipped together: they agree, but none kept its label.
    squares = np.ones((1, 1), np.bool_)
    module.unsettled_squares(np.zeros((3, 3), np.bool_), np.ones((3, 3), np.bool_), 2, squares)
    assert squares.tolist() == [[True]]


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_refuse_wrong_arguments(module: ModuleType) -> None:
    mask, squares = np.zeros((5, 7), np.bool_), np.zeros((2, 3), np.bool_)
    for step in (0, -3):
        with pytest.raises(ValueError, match="is below 1"):
            module.strided_rest(mask, step, mask.copy())
        with pytest.raises(ValueError, match="is below 1"):
            module.unsettled_squares(mask, mask, step, squares)
    with pytest.raises(ValueError, match="flipped"):
        module.strided_rest(mask.astype(np.uint8), 2, mask.copy())
    with pytest.raises(ValueError, match="out"):
        module.strided_rest(mask, 2, mask[:, :6].copy())
    with pytest.raises(ValueError, match="before"):
        module.unsettled_squares(mask[0], mask, 2, squares)
    with pytest.raises(ValueError, match="after"):
        module.unsettled_squares(mask, mask[:4].copy(), 2, squares)
    with pytest.raises(ValueError, match="squares"):
        module.unsettled_squares(mask, mask, 2, np.zeros((3, 3), np.bool_))
