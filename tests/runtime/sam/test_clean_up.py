"""Clean-up on the box of a mask against clean-up of the whole image, which test_regions holds against upstream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrt.kernels import sets
from maskrt.kernels.mask_stats import box_and_counts
from maskrt.kernels.regions import remove_small_regions
from maskrt.runtime.rle import encode_rle
from maskrt.runtime.sam.clean_up import clean_rle


def check(mask, min_area):
    rle, box, changed = clean_rle(encode_rle(mask), box_and_counts(mask)[0], min_area, sets.CPU)
    whole = mask.copy()
    expected = remove_small_regions(whole, min_area, "holes", whole)
    expected |= remove_small_regions(whole, min_area, "islands", whole)
    assert rle == encode_rle(whole)
    assert box.tolist() == box_and_counts(whole)[0].tolist()
    assert changed == expected
    return changed


@given(
    arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)),
    st.tuples(*[st.integers(0, 4)] * 4),
    st.integers(1, 9),
)
def test_equal_to_the_whole_image(mask, margins, min_area):
    left, top, right, bottom = margins
    check(np.pad(mask, ((top, bottom), (left, right))), min_area)


@pytest.mark.parametrize("min_area", [1, 5, 40, 500, 10**6])
def test_equal_on_larger_masks(rng, blobs, min_area):
    changed = []
    for cells in (4, 12, 30):
        mask = blobs(rng, 120, 160, cells) > 1
        mask[:, :30] = False  # the box is smaller than the image
        changed.append(check(mask, min_area))
    assert any(changed) == (min_area > 1)
