"""Voting over runs: against dense masks."""

import numpy as np
import pytest

from maskrt.kernels import voting
from maskrt.kernels.voting import cpu, reference
from maskrt.runtime.rle import encode_rle

SHAPES = [(1, 1), (1, 40), (40, 1), (33, 65), (120, 97), (9, 1300)]


def masks_of(rng, blobs, shape, number):
    """Random blobs, and an empty, a full and a one-pixel mask."""
    masks = [blobs(rng, *shape) > 0 for _ in range(number)]
    one = np.zeros(shape, np.bool_)
    one[-1, -1] = True
    return np.array([*masks, np.zeros(shape, np.bool_), np.ones(shape, np.bool_), one])


def runs_of(masks):
    return voting.runs_of([encode_rle(mask)["counts"] for mask in masks])


@pytest.mark.parametrize("shape", SHAPES)
def test_runs_restore_the_masks(rng, blobs, shape):
    masks = masks_of(rng, blobs, shape, 4)
    np.testing.assert_array_equal(reference._dense(runs_of(masks), *shape), masks)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 5])
def test_votes(rng, blobs, shape, classes):
    masks = masks_of(rng, blobs, shape, 6)
    runs = runs_of(masks)
    ballots = rng.random((classes, *shape), dtype=np.float32)
    out, expected = np.full((2, len(masks), classes), np.nan)
    cpu.count_votes(ballots, runs, out)
    reference.count_votes(ballots, runs, expected)
    np.testing.assert_array_equal(out, expected)
    exact = (masks[:, None] * ballots.astype(np.float64)).sum(axis=(2, 3))
    np.testing.assert_allclose(out, exact, rtol=0, atol=2**-25 * masks[0].size)
    hard = np.ascontiguousarray(np.round(ballots))
    cpu.count_votes(hard, runs, out)
    reference.count_votes(hard, runs, expected)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_paint(rng, blobs, shape):
    masks = masks_of(rng, blobs, shape, 6)
    classes = rng.integers(0, 255, len(masks)).astype(np.uint8)
    for order in (rng.permutation(len(masks)), np.arange(2), np.empty(0, np.int64)):
        out = np.full(shape, 77, np.uint8)
        expected, dense = out.copy(), out.copy()
        cpu.paint(runs_of(masks), classes, order, out)
        reference.paint(runs_of(masks), classes, order, expected)
        for n in order:
            dense[masks[n]] = classes[n]
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(out, dense)


@pytest.mark.parametrize("module", [cpu, reference])
def test_no_masks(module):
    runs = voting.runs_of([])
    assert [array.tolist() for array in runs] == [[], [0]]
    module.count_votes(np.zeros((2, 3, 4), np.float32), runs, np.empty((0, 2)))
    out = np.ones((3, 4), np.uint8)
    module.paint(runs, np.empty(0, np.uint8), np.empty(0, np.int64), out)
    assert (out == 1).all()


@pytest.mark.parametrize("module", [cpu, reference])
def test_refuses_wrong_arguments(module):
    runs = voting.runs_of([[3, 9]])
    with pytest.raises(ValueError, match="12"):
        module.count_votes(np.zeros((2, 3, 3), np.float32), runs, np.empty((1, 2)))
    for wrong in ([-1, 13], [0, 14, -2], [12, 1], [1 << 62] * 4):
        with pytest.raises(ValueError, match="12 pixels"):
            module.count_votes(np.zeros((2, 3, 4), np.float32), voting.runs_of([wrong]), np.empty((1, 2)))
    with pytest.raises(ValueError, match="offsets"):
        module.count_votes(np.zeros((2, 3, 4), np.float32), runs._replace(offsets=np.array([0, 1])), np.empty((1, 2)))
    with pytest.raises(ValueError, match="out"):
        module.count_votes(np.zeros((2, 3, 4), np.float32), runs, np.empty((2, 2)))
    with pytest.raises(ValueError, match="order"):
        module.paint(runs, np.zeros(1, np.uint8), np.array([1]), np.zeros((3, 4), np.uint8))
    with pytest.raises(ValueError, match="12"):
        module.paint(runs, np.zeros(1, np.uint8), np.array([0]), np.zeros((3, 3), np.uint8))
