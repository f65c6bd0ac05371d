"""Automatic masks against segment_anything's own generator, on a tiny SAM whose sessions are run by PyTorch."""

from dataclasses import replace

import cv2
import numba
import numpy as np
import pytest
import torch

from maskrt.benchmarks.peers.sam_upstream import upstream_generator
from maskrt.runtime.bundle.specs import MasksSpec, SamSpec
from maskrt.runtime.errors import BundleError, InputError, NetworkError
from maskrt.runtime.evaluation.equality import compare_segments
from maskrt.runtime.rle import encode_rle
from maskrt.runtime.sam.mask_decoder import SplitDecoder, WholeDecoder
from maskrt.runtime.sam.mask_generator import AutomaticMaskGenerator
from maskrt.runtime.sam.prompts import point_grid

SPEC = MasksSpec(points_per_side=10, points_per_batch=64, stability_score_thresh=0.7, box_nms_thresh=0.95)
SEED = 7


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    # Tiny layers and tiny images: threads would only wait for each other, seconds of it on a busy machine.
    threads = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    yield
    torch.set_num_threads(threads[0])
    numba.set_num_threads(threads[1])


def picture(seed, height, width):
    colours = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.float32)
    return cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def sam_spec(size):
    return SamSpec(size, (size // 4, size // 4))


def both(sam, sessions, rgb, spec):
    ours = mask_generator(sessions, sam_spec(sam.image_encoder.img_size), spec)(rgb, {})
    return ours, upstream_generator(sam, spec).generate(rgb)


def mask_generator(sessions, sam, spec):
    encoder, *decoder = sessions
    return AutomaticMaskGenerator(
        encoder, (WholeDecoder if len(decoder) == 1 else SplitDecoder)(*decoder, sam), sam, spec
    )


@pytest.fixture(scope="module", params=["whole", "split"])
def model(request, tiny_sam, sam_sessions, split_sessions):
    sam = tiny_sam(128, SEED)
    encoder, decoder = sam_sessions(sam)
    return sam, (encoder, decoder) if request.param == "whole" else (encoder, *split_sessions(sam))


def check(ours, upstream, **exactly):
    equality = compare_segments(ours, upstream)
    assert equality.different == 0
    assert equality.max_pred_iou_difference < 1e-5
    for name, value in exactly.items():
        assert getattr(equality, name) == value, equality
    return equality


@pytest.mark.parametrize("size_hw", [(128, 128), (150, 200), (200, 150), (96, 128), (333, 481)])
def test_equal_to_upstream(model, size_hw):
    ours, upstream = both(*model, picture(1, *size_hw), SPEC)
    equality = check(ours, upstream, same_order=True)
    assert 3 <= equality.masks <= SPEC.points_per_side**2
    assert equality.ties <= 1


@pytest.mark.parametrize("size_hw", [(40, 400), (400, 40), (64, 500)])
def test_equal_to_upstream_on_strips(model, size_hw):
    spec = replace_spec(pred_iou_thresh=0.8, stability_score_thresh=0.3)
    equality = check(*both(*model, picture(1, *size_hw), spec), same_order=True)
    assert equality.masks >= 3


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (7, 5), (20, 30), (60, 50)])
def test_equal_to_upstream_on_tiny_images(model, size_hw):
    check(*both(*model, picture(2, *size_hw), SPEC))


@pytest.mark.parametrize("seed", [1, 7, 10])
@pytest.mark.parametrize("image_size", [128, 256])
def test_bit_equal_where_float32_holds_the_points(tiny_sam, sam_sessions, seed, image_size):
    """Upstream's coordinates are float64; a grid of 8 on a square that is not resized is exact in float32 too."""
    sam = tiny_sam(image_size, seed)
    spec = replace_spec(points_per_side=8)
    ours, upstream = both(sam, sam_sessions(sam), picture(seed, image_size, image_size), spec)
    check(ours, upstream, identical_rles=len(upstream), same_order=True, max_pred_iou_difference=0.0)
    assert ours.stability_score.tolist() == [record["stability_score"] for record in upstream]
    assert ours.points_xy.tolist() == [record["point_coords"][0] for record in upstream]


@pytest.mark.parametrize("size_hw", [(150, 200), (333, 481), (64, 500)])
@pytest.mark.parametrize(("layers", "downscale"), [(1, 1), (2, 2)])
def test_crops_equal_upstream(tiny_sam, sam_sessions, size_hw, layers, downscale):
    sam = tiny_sam(128, SEED)
    crops = {"crop_n_layers": layers, "crop_n_points_downscale_factor": downscale}
    spec = replace_spec(pred_iou_thresh=0.8, stability_score_thresh=0.3, **crops)
    ours, upstream = both(sam, sam_sessions(sam), picture(1, *size_hw), spec)
    check(ours, upstream, same_order=True)
    grid = {tuple(point) for point in point_grid(10) * size_hw[::-1]}
    assert any(tuple(point) not in grid for point in ours.points_xy)  # some were found in a crop


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 200)])
def test_crops_of_images_that_are_too_small(tiny_sam, sam_sessions, size_hw):
    sam = tiny_sam(128, SEED)
    spec = replace_spec(crop_n_layers=2, pred_iou_thresh=0.0, stability_score_thresh=0.0, points_per_side=3)
    segments = mask_generator(sam_sessions(sam), sam_spec(128), spec)(picture(1, *size_hw), {})
    assert segments.size_hw == size_hw
    assert len(segments) > 0


def test_coarse_to_fine_asks_less(tiny_sam, sam_sessions):
    """Its masks are masks of the grid; what it leaves out lies inside a mask that it has."""
    sam = tiny_sam(128, SEED)
    asked = []
    encoder, decoder = sam_sessions(sam)

    class Counting:
        inputs, outputs = decoder.inputs, decoder.outputs

        def run(self, feeds, **options):
            asked.append(len(feeds["point_coords"]))
            return decoder.run(feeds, **options)

    rgb = picture(1, 150, 200)
    grid = mask_generator((encoder, decoder), sam_spec(128), SPEC)(rgb, {})
    less = mask_generator((encoder, Counting()), sam_spec(128), replace_spec(prompts="coarse_to_fine"))(rgb, {})
    assert 25 <= sum(asked) < SPEC.points_per_side**2
    assert {tuple(p) for p in less.points_xy} <= {tuple(p) for p in point_grid(10) * [200, 150]}
    assert 0 < len(less) <= len(grid)


def test_guided_needs_the_segmenter(tiny_sam, sam_sessions):
    sam = tiny_sam(128, SEED)
    guided = mask_generator(sam_sessions(sam), sam_spec(128), replace_spec(prompts="guided"))
    with pytest.raises(InputError, match="guided"):
        guided(picture(1, 150, 200), {})
    everywhere = guided(picture(1, 150, 200), {}, np.full((150, 200), 0.4, np.float32))
    grid, _ = both(sam, sam_sessions(sam), picture(1, 150, 200), SPEC)
    assert everywhere.rles == grid.rles
    assert len(guided(picture(1, 150, 200), {}, np.zeros((150, 200), np.float32))) == 0


def test_every_gate_drops_some(model):
    """Each stage matters on this model, so that equality above says something about it."""
    rgb = picture(1, 150, 200)
    masks = 3 * SPEC.points_per_side**2
    everything = replace_spec(
        pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0, min_mask_region_area=0
    )
    counts = []
    for spec in (
        everything,
        replace_spec(everything, pred_iou_thresh=0.9),
        replace_spec(everything, pred_iou_thresh=0.9, stability_score_thresh=0.7),
        replace_spec(SPEC, min_mask_region_area=0),
        replace_spec(SPEC, box_nms_thresh=0.5, min_mask_region_area=0),
    ):
        ours, upstream = both(*model, rgb, spec)
        check(ours, upstream)
        counts.append(len(ours))
    assert counts[0] == masks
    assert counts == sorted(set(counts), reverse=True)
    assert counts[-1] >= 2


@pytest.mark.parametrize("min_area", [1, 50, 600, 5000, 10**6])
def test_clean_up_of_small_regions(model, min_area):
    rgb = picture(3, 150, 200)
    spec = replace_spec(min_mask_region_area=min_area)
    ours, upstream = both(*model, rgb, spec)
    check(ours, upstream, same_order=True)
    before, _ = both(*model, rgb, replace_spec(min_mask_region_area=0))
    changed = [rle for rle in ours.rles if rle not in before.rles]
    assert bool(changed) == (min_area >= 600)
    # What upstream leaves stale stays stale: the scores are those of the mask before.
    assert set(ours.stability_score.tolist()) <= set(before.stability_score.tolist())


def test_batches_are_bounded_and_do_not_matter(tiny_sam, sam_sessions):
    sam = tiny_sam(128, SEED)
    encoder, decoder = sam_sessions(sam)
    rgb = picture(1, 150, 200)
    ours, upstream = both(sam, (encoder, decoder), rgb, replace_spec(points_per_batch=7))
    check(ours, upstream)
    assert decoder.batches == [7] * 14 + [2]


def test_no_masks(model):
    timings_ms = {"masks": 1.0}
    spec = replace_spec(pred_iou_thresh=2.0)
    ours = mask_generator(model[1], sam_spec(128), spec)(picture(1, 90, 120), timings_ms)
    assert len(ours) == 0
    assert ours.size_hw == (90, 120)
    assert [a.shape for a in (ours.boxes_xyxy, ours.points_xy, ours.area)] == [(0, 4), (0, 2), (0,)]
    assert ours.dense().shape == (0, 90, 120)
    assert set(timings_ms) == {"encoder", "decoder", "masks"}
    assert timings_ms["masks"] > 1.0


def test_timings_and_types(model):
    timings_ms = {}
    ours = mask_generator(model[1], sam_spec(128), SPEC)(picture(1, 90, 120), timings_ms)
    assert all(value > 0 for value in timings_ms.values())
    assert ours.dense().sum(axis=(1, 2)).tolist() == ours.area.tolist()
    assert [ours.boxes_xyxy.dtype, ours.pred_iou.dtype, ours.area.dtype] == [np.int32, np.float32, np.int64]
    assert [encode_rle(mask) for mask in ours.dense()] == list(ours.rles)


def test_point_grid_equals_upstream(model):
    for side in (1, 2, 40):
        np.testing.assert_array_equal(
            point_grid(side), upstream_generator(model[0], replace_spec(points_per_side=side)).point_grids[0]
        )


def test_refuses_other_graphs(tiny_sam, sam_sessions, split_sessions):
    sam = tiny_sam(128, SEED)
    encoder, decoder = sam_sessions(sam)
    image_side, token_side, upscale = split_sessions(sam)
    for wrong in ((decoder, decoder), (encoder, encoder), (encoder, image_side, upscale, token_side)):
        with pytest.raises(BundleError, match="export the bundle again"):
            mask_generator(wrong, sam_spec(128), SPEC)
    del token_side.outputs["gains"]
    with pytest.raises(BundleError, match="no graph of the decoder gives gains"):
        mask_generator((encoder, image_side, token_side, upscale), sam_spec(128), SPEC)
    for sessions in ((encoder, decoder), (encoder, *split_sessions(sam))):
        with pytest.raises(NetworkError, match="declares"):
            mask_generator(sessions, SamSpec(128, (64, 64)), SPEC)(picture(1, 90, 120), {})


def test_comparison_counts_what_differs(model):
    """The yardstick itself: flipped pixels, a missing mask and a wrong box are all seen."""
    ours, upstream = both(*model, picture(1, 150, 200), SPEC)
    masks = ours.dense()
    masks[0, 10, 10] ^= True
    masks[1, :75] ^= True
    boxes = ours.boxes_xyxy.copy()
    boxes[2] += 1
    altered = replace(ours, rles=tuple(encode_rle(mask) for mask in masks), boxes_xyxy=boxes)
    equality = compare_segments(altered, upstream[:-1])
    assert (equality.masks, equality.ties, equality.different) == (len(ours), 1, 3)
    assert equality.identical_rles == len(ours) - 4
    assert not equality.equal


def replace_spec(spec=SPEC, **fields):
    return MasksSpec(**{name: getattr(spec, name) for name in spec.__struct_fields__} | fields)
