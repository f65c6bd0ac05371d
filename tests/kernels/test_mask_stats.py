"""Box and run lengths of a mask: against the NumPy definition, upstream's PyTorch and pycocotools."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins
from maskrt.kernels.mask_stats import cpu, reference

with torchvision_or_stand_ins():
    from segment_anything.utils.amg import batched_mask_to_box, mask_to_rle_pytorch


def check(mask):
    expected = mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0]["counts"]
    box = batched_mask_to_box(torch.from_numpy(mask)[None])[0].tolist()
    for module in (cpu, reference):
        got_box, counts = module.box_and_counts(mask)
        assert counts.tolist() == expected
        assert got_box.tolist() == box
        assert (got_box.dtype, counts.dtype) == (np.int32, np.int64)


@settings(max_examples=200)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_box_and_counts_equal_upstream(mask):
    check(mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 3), (270, 481)])
def test_edge_cases(rng, blobs, shape):
    one = np.zeros(shape, np.bool_)
    one[-1, -1] = True
    for mask in (np.zeros(shape, np.bool_), np.ones(shape, np.bool_), one, ~one, blobs(rng, *shape) > 0):
        check(mask)


def test_counts_are_what_coco_reads(rng, blobs):
    mask = blobs(rng, 61, 83) > 0
    _, counts = cpu.box_and_counts(mask)
    compressed = coco.frPyObjects({"size": [61, 83], "counts": counts.tolist()}, 61, 83)
    np.testing.assert_array_equal(coco.decode(compressed).astype(np.bool_), mask)


@pytest.mark.parametrize("module", [cpu, reference])
def test_refuses_wrong_arrays(module):
    with pytest.raises(ValueError, match="no pixels"):
        module.box_and_counts(np.zeros((0, 4), np.bool_))
    with pytest.raises(ValueError, match="C-contiguous"):
        module.box_and_counts(np.zeros((3, 4), np.bool_).T)
