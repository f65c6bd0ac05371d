"""Masks measured from low-res logits: bit for bit those of the dense resize, and against upstream's PyTorch."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins
from maskrt.kernels.low_res import Placement, Window, cpu, reference, window_of
from maskrt.kernels.mask_stats import box_and_counts
from maskrt.kernels.resample import resize_bilinear

with torchvision_or_stand_ins():
    from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score, mask_to_rle_pytorch

THRESHOLDS = np.array([-1, 0, 1], np.float32)
PLACEMENTS = {
    "enlarged": (16, Placement(64, (64, 36), (300, 170))),
    "reduced": (32, Placement(128, (128, 128), (40, 40))),
    "same": (16, Placement(64, (64, 64), (64, 64))),
    "wide": (8, Placement(32, (3, 32), (25, 250))),
    "one row": (8, Placement(32, (1, 32), (1, 200))),
    "one column": (8, Placement(32, (32, 1), (300, 1))),
    "one pixel": (8, Placement(32, (32, 32), (1, 1))),
    "7 x 1023": (16, Placement(64, (1, 64), (7, 1023))),
    "larger than the low-res mask": (64, Placement(256, (144, 256), (540, 960))),
}


def dense(logits, placement):
    """The two resizes in full, by the kernel that test_resample holds against PyTorch."""
    square = np.empty((1, placement.square, placement.square), np.float32)
    resize_bilinear(logits[None], square)
    height, width = placement.input_hw
    full = np.empty((1, *placement.size_hw), np.float32)
    resize_bilinear(np.ascontiguousarray(square[:, :height, :width]), full)
    return full[0]


def measured(module, low_res, placement, thresholds=THRESHOLDS, min_stability=0.0):
    stability, box = np.full(len(low_res), -1, np.float32), np.full((len(low_res), 4), -1, np.int32)
    module.measure_masks(low_res, placement, thresholds, min_stability, stability, box)
    return stability, box


def score(full, thresholds):
    union, intersection = (full > thresholds[0]).sum(), (full > thresholds[2]).sum()
    return np.float32(intersection) / np.float32(union) if union else np.float32(np.nan)


def check(low_res, placement, thresholds=THRESHOLDS):
    scores, boxes = measured(cpu, low_res, placement, thresholds)
    gated = {gate: measured(cpu, low_res, placement, thresholds, gate) for gate in (0.3, 0.85)}
    side = low_res.shape[1]
    for index, (logits, box) in enumerate(zip(low_res, boxes, strict=True)):
        full = dense(logits, placement)
        expected = score(full, thresholds)
        np.testing.assert_array_equal(scores[index], expected)
        expected_box, counts = box_and_counts(full > thresholds[1])
        assert box.tolist() == expected_box.tolist()
        window = window_of(logits, placement, box)
        assert cpu.mask_counts(window, side, placement, thresholds[1], box).tolist() == counts.tolist()
        for gate, (gated_scores, gated_boxes) in gated.items():
            stable = expected >= np.float32(gate)
            np.testing.assert_array_equal(gated_scores[index], expected if stable or np.isnan(expected) else 0)
            assert gated_boxes[index].tolist() == (expected_box.tolist() if stable else [0, 0, 0, 0])


def draw(rng, side, count):
    """Smooth fields of every coarseness and level, with noise on some."""
    fields = []
    for _ in range(count):
        cells = int(rng.integers(2, max(3, side // 2 + 1)))
        coarse = (rng.standard_normal((cells, cells)) * 4 - rng.uniform(-2, 6)).astype(np.float32)
        fields.append(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))
    return np.stack(fields)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_equal_to_the_dense_resize(rng, name):
    side, placement = PLACEMENTS[name]
    check(np.concatenate([draw(rng, side, 12), rng.standard_normal((3, side, side)).astype(np.float32)]), placement)


@pytest.mark.parametrize("name", ["enlarged", "reduced", "one row", "one pixel"])
def test_equal_to_the_definition(rng, name):
    side, placement = PLACEMENTS[name]
    low_res = draw(rng, side, 6)
    for gate in (0.0, 0.5):
        found = measured(cpu, low_res, placement, min_stability=gate)
        expected = measured(reference, low_res, placement, min_stability=gate)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
    _, boxes = measured(cpu, low_res, placement)
    for logits, box in zip(low_res, boxes, strict=True):
        counts = [m.mask_counts(window_of(logits, placement, box), side, placement, 0, box) for m in (cpu, reference)]
        np.testing.assert_array_equal(*counts)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_adversarial_logits(name):
    side, placement = PLACEMENTS[name]
    board = np.indices((side, side)).sum(0) % 2 * np.float32(8) - 4
    one = np.full((side, side), -9, np.float32)
    one[side // 2, side // 2] = 20
    frame = np.full((side, side), 5, np.float32)
    frame[1:-1, 1:-1] = -5
    levels = [np.full((side, side), level, np.float32) for level in (-30, -1, 0, 1, 30, np.nextafter(np.float32(0), 1))]
    mixed = np.where(board > 0, np.float32(1), np.float32(-1))  # exactly on the cut-offs
    check(np.stack([board, -board, one, -one, frame, -frame, mixed, *levels]).astype(np.float32), placement)


def test_masks_that_touch_each_border():
    side, placement = PLACEMENTS["enlarged"]
    masks = []
    for rows, columns in ((slice(0, 2), slice(3, 6)), (slice(-2, None), slice(3, 6)), (slice(3, 6), slice(0, 1))):
        mask = np.full((side, side), -8, np.float32)
        mask[rows, columns] = 8
        masks += [mask, np.ascontiguousarray(mask.T)]
    check(np.stack(masks), placement)


@settings(max_examples=60)
@given(
    arrays(np.float32, (1, 6, 6), elements=st.floats(-4, 4, width=16)),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_any_logits_and_sizes(low_res, input_height, input_width, height, width):
    check(low_res, Placement(24, (input_height, input_width), (height, width)))


def test_equal_to_upstream(rng):
    """Sam.postprocess_masks and utils.amg, at a size where PyTorch's resize rounds as ours."""
    side, placement = 64, Placement(256, (256, 200), (333, 260))
    low_res = draw(rng, side, 8)
    square = torch.nn.functional.interpolate(torch.from_numpy(low_res)[None], (256, 256), mode="bilinear")
    full = torch.nn.functional.interpolate(square[..., :256, :200], placement.size_hw, mode="bilinear")[0]
    stability, boxes = measured(cpu, low_res, placement)
    np.testing.assert_allclose(stability, calculate_stability_score(full, 0.0, 1.0).numpy(), rtol=1e-3)
    np.testing.assert_array_equal(boxes, batched_mask_to_box(full > 0).numpy())
    for logits, box, rle in zip(low_res, boxes, mask_to_rle_pytorch(full > 0), strict=True):
        counts = cpu.mask_counts(window_of(logits, placement, box), side, placement, 0, box)
        dense_mask, expected = np.repeat(np.arange(counts.size) % 2, counts), np.array(rle["counts"])
        assert (dense_mask != np.repeat(np.arange(expected.size) % 2, expected)).sum() <= 2


def test_a_window_holds_no_more_than_the_box_needs(rng):
    side, placement = PLACEMENTS["larger than the low-res mask"]
    logits = np.full((side, side), -5, np.float32)
    logits[10:13, 20:24] = 5
    _, box = measured(cpu, logits[None], placement)
    window = window_of(logits, placement, box[0])
    assert window.values.size < 100
    assert not np.shares_memory(window.values, logits)
    short = Window(window.values[:-1], window.row, window.column)
    for module in (cpu, reference):
        with pytest.raises(ValueError, match="needs rows"):
            module.mask_counts(short, side, placement, 0.0, box[0])


@pytest.mark.parametrize("module", [cpu, reference])
def test_refuses_wrong_arguments(module):
    placement = Placement(32, (32, 32), (50, 50))
    with pytest.raises(ValueError, match="float32"):
        measured(module, np.zeros((1, 8, 8)), placement)
    with pytest.raises(ValueError, match="low_res"):
        measured(module, np.zeros((1, 8, 9), np.float32), placement)
    with pytest.raises(ValueError, match="do not ascend"):
        measured(module, np.zeros((1, 8, 8), np.float32), placement, THRESHOLDS[::-1].copy())
    with pytest.raises(ValueError, match="cannot place"):
        measured(module, np.zeros((1, 8, 8), np.float32), Placement(32, (33, 32), (50, 50)))
    box = np.array([0, 0, 50, 3], np.int32)
    with pytest.raises(ValueError, match="leaves the image"):
        module.mask_counts(Window(np.zeros((8, 8), np.float32), 0, 0), 8, placement, 0.0, box)
