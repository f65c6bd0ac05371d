"""Run lengths: against pycocotools and upstream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins
from maskrt.runtime.rle import decode_part, decode_rle, encode_rle, move_rle, rle_area

with torchvision_or_stand_ins():
    from segment_anything.utils.amg import area_from_rle, rle_to_mask

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))


@given(MASKS)
def test_round_trip_through_coco(mask):
    height, width = mask.shape
    rle = encode_rle(mask)
    compressed = coco.frPyObjects(dict(rle), height, width)
    np.testing.assert_array_equal(coco.decode(compressed).astype(np.bool_), mask)
    assert coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] == compressed["counts"]
    np.testing.assert_array_equal(decode_rle(rle), mask)
    np.testing.assert_array_equal(rle_to_mask(rle), mask)
    assert rle_area(rle) == area_from_rle(rle) == coco.area(compressed) == mask.sum()


@given(MASKS, st.integers(-3, 3).filter(bool))
def test_refuses_runs_of_another_size(mask, excess):
    rle = encode_rle(mask)
    with pytest.raises(ValueError, match="add up"):
        decode_rle({"size": rle["size"], "counts": [*rle["counts"], excess]})


def test_refuses_negative_runs():
    with pytest.raises(ValueError, match="add up"):
        decode_rle({"size": [2, 2], "counts": [6, -2]})


@given(MASKS, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_a_part_is_the_mask_cut(mask, x, y, width, height):
    whole = np.pad(mask, ((0, 20), (0, 20)))
    part = decode_part(encode_rle(mask), (x, y, width, height))
    np.testing.assert_array_equal(part, whole[y : y + height, x : x + width])
    assert part.flags.c_contiguous


@given(MASKS, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_moving_is_padding(mask, left, top, right, bottom):
    padded = np.pad(mask, ((top, bottom), (left, right)))
    assert move_rle(encode_rle(mask), (left, top), padded.shape) == encode_rle(padded)
