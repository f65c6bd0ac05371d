"""Brush run lengths: against a decoder that reads bit by bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from unpacked import unpacked

from maskrt.runtime.serve import brush_rle
from maskrt.runtime.serve.brush_rle import encode_brush


def check(mask):
    packed = encode_brush(mask)
    assert all(isinstance(byte, int) and 0 <= byte < 256 for byte in packed)
    channels = unpacked(packed)
    assert channels.size == mask.size * 4
    assert np.array_equal(channels.reshape(*mask.shape, 4), np.repeat(mask[..., None] * 255, 4, axis=2))


@settings(max_examples=200)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20), elements=st.booleans()))
def test_comes_back_equal(mask):
    check(mask)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 32768, 40000])
def test_runs_at_the_limits_of_the_kinds(length):
    for first in (False, True):
        mask = np.concatenate([np.full(length, first), np.full(3, not first), np.full(length, first)])[None]
        check(mask)
        check(np.full((1, length), first))


def test_blobs_and_a_mask_that_is_not_contiguous(rng, blobs):
    mask = blobs(rng, 97, 131) > 0
    check(mask)
    check(mask[::2, ::3])
    check(mask.T)


def test_many_runs(rng, monkeypatch):
    monkeypatch.setattr(brush_rle, "RUNS_AT_A_TIME", 100)
    check(rng.random((70, 80)) < 0.5)


def test_a_known_picture():
    # 32 bits: 8 values; 5: 8 bits each; 3, 4, 8, 16; a run of kind 0, 4 long, of 0; another of 255; five zeros.
    bits = f"{8:032b}" + "00111" + "0010001101111111" + "10001100000000" + "10001111111111"
    assert len(bits) == 81
    expected = [int(bits.ljust(88, "0")[place : place + 8], 2) for place in range(0, 88, 8)]
    assert encode_brush(np.array([[False, True]])) == expected
