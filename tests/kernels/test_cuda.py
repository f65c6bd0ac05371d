"""The CUDA kernels against their definitions, on a GPU: pytest -m gpu tests/kernels/test_cuda*.py.

test_cuda_simulator.py runs these tests, and test_cuda_patches.py's, in Numba's simulator, where the marker is left out.
"""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from maskrt.kernels import sets, voting
from maskrt.kernels.low_res import Placement, Window, window_of
from maskrt.kernels.morphology.reference import disk
from maskrt.kernels.pixel_decoder.tables import axis_table
from maskrt.kernels.pixel_decoder.types import DecoderWeights, Grid
from maskrt.kernels.sampling.reference import resize_taps
from maskrt.kernels.sampling.types import OUTSIDE, Taps
from maskrt.kernels.selections.reference import squares_of
from maskrt.kernels.sets import REFERENCE, KernelSet
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.rle import encode_rle

pytestmark = [] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else [pytest.mark.gpu]

SHAPES = [(1, 1), (1, 9), (9, 1), (33, 20), (7, 61)]
PLACEMENTS = {
    "enlarged": (6, Placement(24, (24, 14), (25, 17))),
    "reduced": (12, Placement(48, (48, 48), (13, 11))),
    "same": (4, Placement(16, (16, 16), (16, 16))),
    "one row": (8, Placement(32, (1, 32), (1, 50))),
    "one column": (8, Placement(32, (32, 1), (70, 1))),
    "one pixel": (8, Placement(32, (32, 32), (1, 1))),
}


@pytest.fixture(scope="module")
def gpu() -> KernelSet:
    """The set under test."""
    return sets.cuda()


def masks_of(rng: np.random.Generator, blobs: Any, shape: tuple[int, int], number: int) -> NDArray[np.bool_]:
    """Random blobs, and an empty, a full and a one-pixel mask."""
    one = np.zeros(shape, np.bool_)
    one[-1, -1] = True
    drawn = [blobs(rng, *shape) > 0 for _ in range(number)]
    return np.array([*drawn, np.zeros(shape, np.bool_), np.ones(shape, np.bool_), one])


def runs_of(masks: NDArray[np.bool_]) -> voting.Runs:
    return voting.runs_of([encode_rle(mask)["counts"] for mask in masks])


def random_taps(rng: np.random.Generator, size: int, places: int) -> Taps:
    """Any two values blended, in any order; one place in four is outside."""
    low, high = rng.integers(0, size, (2, places))
    outside = rng.random(places) < 0.25
    low, high = (np.where(outside, OUTSIDE, at) for at in (low, high))
    return Taps(low, high, rng.random(places).astype(np.float32))


def decoder(rng: np.random.Generator, channels: int, layers: int) -> DecoderWeights:
    def draw(*shape: int) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    hidden = draw(layers, channels, channels) * np.float32(1.4)
    return DecoderWeights(
        draw(channels, 6), draw(channels), hidden, draw(layers, channels), draw(channels) * 3, np.float32(rng.normal())
    )


def test_the_set_is_the_devices(gpu: KernelSet) -> None:
    """All but the connected regions, the choice of windows, the erosion and distances."""
    own = {field.name for field in fields(KernelSet) if getattr(gpu, field.name).__module__.endswith(".cuda")}
    assert own == {field.name for field in fields(KernelSet)} - {
        "remove_small_regions",
        "region_boxes",
        "choose_windows",
        "erode_cross",
        "squared_distance",
    }
    assert gpu.remove_small_regions is sets.CPU.remove_small_regions
    assert gpu.choose_windows is sets.CPU.choose_windows


@pytest.mark.parametrize("shape", SHAPES)
def test_count_votes(gpu: KernelSet, rng: np.random.Generator, blobs: Any, shape: tuple[int, int]) -> None:
    runs = runs_of(masks_of(rng, blobs, shape, 3))
    for classes in (1, 3):
        # Squares need more digits than are counted, and so are rounded; halves of a step to the even one.
        ballots = (rng.random((classes, *shape)) ** 2).astype(np.float32)
        ballots[:, -1, -1] = np.array([1, 2**-25, 3 * 2**-25])[:classes]
        out, expected = np.full((2, 6, classes), np.nan)
        gpu.count_votes(ballots, runs, out)
        REFERENCE.count_votes(ballots, runs, expected)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_paint(gpu: KernelSet, rng: np.random.Generator, blobs: Any, shape: tuple[int, int]) -> None:
    runs = runs_of(masks_of(rng, blobs, shape, 4))
    classes = rng.integers(0, 255, 7).astype(np.uint8)
    for order in (rng.permutation(7), np.array([5, 1, 5, 0, 1]), np.array([5]), np.empty(0, np.int64)):
        out, expected = np.full((2, *shape), 77, np.uint8)
        gpu.paint(runs, classes, order, out)
        REFERENCE.paint(runs, classes, order, expected)
        np.testing.assert_array_equal(out, expected)


def test_no_masks(gpu: KernelSet) -> None:
    gpu.count_votes(np.zeros((2, 3, 4), np.float32), voting.runs_of([]), np.empty((0, 2)))
    out = np.ones((3, 4), np.uint8)
    gpu.paint(voting.runs_of([]), np.empty(0, np.uint8), np.empty(0, np.int64), out)
    assert (out == 1).all()
    low_res, boxes = np.empty((0, 4, 4), np.float32), np.empty((0, 4), np.int32)
    placement = Placement(8, (8, 8), (9, 9))
    gpu.measure_masks(low_res, placement, np.zeros(3, np.float32), 0.5, np.empty(0, np.float32), boxes)


@pytest.mark.parametrize("shape", [*SHAPES, (130, 3)])
def test_box_and_counts(gpu: KernelSet, rng: np.random.Generator, blobs: Any, shape: tuple[int, int]) -> None:
    masks = masks_of(rng, blobs, shape, 2)
    for mask in (*masks, ~masks[-1], rng.random(shape) < 0.5):
        (box, counts), (expected_box, expected) = gpu.box_and_counts(mask), REFERENCE.box_and_counts(mask)
        assert box.tolist() == expected_box.tolist()
        assert counts.tolist() == expected.tolist()
        assert (box.dtype, counts.dtype) == (np.int32, np.int64)


def logits_of(rng: np.random.Generator, blobs: Any, side: int) -> NDArray[np.float32]:
    """Smooth fields, noise, a board, one peak and flat levels on and beside the thresholds."""
    board = np.indices((side, side)).sum(0) % 2 * np.float32(8) - 4
    peak = np.full((side, side), -9, np.float32)
    peak[side // 2, side // 2] = 20
    flat = [np.full((side, side), level) for level in (-30, -1, 0, 1, 30, np.nextafter(np.float32(0), 1))]
    smooth = [blobs(rng, side, side, cells) - rng.uniform(-1, 3) for cells in (2, 3)]
    on_cut_offs = np.sign(board)
    return np.array([*smooth, rng.standard_normal((side, side)), board, on_cut_offs, peak, *flat], np.float32)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_low_res_masks(gpu: KernelSet, rng: np.random.Generator, blobs: Any, name: str) -> None:
    side, placement = PLACEMENTS[name]
    low_res = logits_of(rng, blobs, side)
    thresholds = np.array([-1, 0, 1], np.float32)
    for gate in (0.0, 0.5):
        found, expected = (
            (np.full(len(low_res), -1, np.float32), np.full((len(low_res), 4), -1, np.int32)) for _ in range(2)
        )
        gpu.measure_masks(low_res, placement, thresholds, gate, *found)
        REFERENCE.measure_masks(low_res, placement, thresholds, gate, *expected)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        for logits, box in zip(low_res, found[1], strict=True) if gate == 0 else ():
            window = window_of(logits, placement, box)
            counts = [kernels.mask_counts(window, side, placement, 0, box) for kernels in (gpu, REFERENCE)]
            np.testing.assert_array_equal(*counts)


@pytest.mark.parametrize("iou_thresh", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("number", [0, 1, 2, 64, 90])
def test_box_nms(gpu: KernelSet, rng: np.random.Generator, iou_thresh: float, number: int) -> None:
    for dtype in (np.float32, np.int32):
        corners = rng.uniform(0, 30, (number, 2, 2)).astype(dtype)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        boxes[::9, 2:] = boxes[::9, :2]  # of area 0
        scores = rng.choice([0.0, 0.5, 0.9, 1.0], number).astype(np.float32)
        kept = gpu.box_nms(boxes, scores, iou_thresh)
        assert kept.dtype == np.int64
        assert kept.tolist() == REFERENCE.box_nms(boxes, scores, iou_thresh).tolist()


def test_box_nms_compares_in_double(gpu: KernelSet) -> None:
    """float32 0.7 is below the double 0.7, float32 0.6 above the double 0.6."""
    boxes, scores = np.array([[0, 0, 10, 1], [0, 0, 7, 1]], np.float32), np.array([1, 0.5], np.float32)
    assert gpu.box_nms(boxes, scores, 0.7).tolist() == [0, 1]
    boxes[1, 2] = 6
    assert gpu.box_nms(boxes, scores, 0.6).tolist() == [0]


@pytest.mark.parametrize("step", [1, 2, 5, 8])
@pytest.mark.parametrize("shape", [*SHAPES, (9, 9), (17, 16)])
def test_settle_squares(
    gpu: KernelSet, rng: np.random.Generator, blobs: Any, shape: tuple[int, int], step: int
) -> None:
    for margin in (0.0, 0.02, 0.3, 0.5):
        found = (1 / (1 + np.exp(-8 * np.clip(blobs(rng, *shape, 3), -2, 2)))).astype(np.float32)
        found[rng.random(shape) < 0.3] = 1
        decoded, squares = rng.random(shape) < 0.3, rng.random(squares_of(shape, step)) < 0.8
        ours, theirs = (found.copy(), squares.copy()), (found.copy(), squares.copy())
        gpu.settle_squares(ours[0], decoded, step, margin, ours[1])
        REFERENCE.settle_squares(theirs[0], decoded, step, margin, theirs[1])
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_sample_bilinear(gpu: KernelSet, rng: np.random.Generator, dtype: type) -> None:
    for _ in range(8):
        channels, height, width = (int(size) for size in rng.integers(1, (4, 30, 30)))
        planes: np.ndarray = rng.uniform(0, 255, (height + 2, width, channels)).astype(dtype)[1:-1].transpose(2, 0, 1)
        rows, columns = random_taps(rng, height, int(rng.integers(1, 20))), random_taps(rng, width, 11)
        scale, offset = rng.uniform(0.01, 2, channels).astype(np.float32), rng.normal(size=channels).astype(np.float32)
        found, expected = np.full((2, channels, rows.low.size, columns.low.size), np.nan, np.float32)
        gpu.sample_bilinear(planes, rows, columns, scale, offset, found)
        REFERENCE.sample_bilinear(planes, rows, columns, scale, offset, expected)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * 255 * 2)
        outside = (rows.low == OUTSIDE)[:, None] | (columns.low == OUTSIDE)
        assert (found[:, outside] == 0).all()


def test_sampling_nothing(gpu: KernelSet) -> None:
    planes, two = np.ones((2, 3, 4), np.float32), np.ones(2, np.float32)
    for rows, columns in (
        (resize_taps(3, 5, 0, 5), resize_taps(4, 8, 8, 11)),
        (resize_taps(3, 5, -4, 0), resize_taps(4, 8, 0, 3)),
        (resize_taps(3, 5, 2, 2), resize_taps(4, 8, 0, 8)),
        (resize_taps(3, 5, 0, 2), resize_taps(4, 8, 3, 3)),
    ):
        out = np.full((2, rows.low.size, columns.low.size), np.nan, np.float32)
        gpu.sample_bilinear(planes, rows, columns, two, two, out)
        assert (out == 0).all()


@pytest.mark.parametrize("size_hw", [(1, 1), (5, 7), (2, 9), (30, 3)])
def test_add_shifted(gpu: KernelSet, rng: np.random.Generator, size_hw: tuple[int, int]) -> None:
    products = rng.standard_normal((9, 2, *size_hw)).astype(np.float32)
    for top, bottom, left, right in ((0, 13, 0, 11), (0, 5, 3, 9), (7, 8, 10, 11)):
        rows, columns = (
            resize_taps(size_hw[0], 13, top - 1, bottom + 1),
            resize_taps(size_hw[1], 11, left - 1, right + 1),
        )
        found, expected = np.full((2, 2, bottom - top, right - left), np.nan, np.float32)
        gpu.add_shifted(products, rows, columns, found)
        REFERENCE.add_shifted(products, rows, columns, expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("channels", "layers"), [(1, 1), (4, 0), (5, 3), (10, 2)])
def test_decode_pixels(gpu: KernelSet, rng: np.random.Generator, channels: int, layers: int) -> None:
    """Pixels in any order and repeated, on windows of the features."""
    weights, spread = decoder(rng, channels, layers), []
    for height, width, count in ((1, 1, 3), (2, 17, 20), (15, 1, 0), (21, 18, 33)):
        cells = -(-height // 2), -(-width // 2)
        grid = Grid.of(axis_table(height, cells[0]), axis_table(width, cells[1]), weights)
        features = rng.standard_normal((*cells, channels)).astype(np.float32)
        top, left = int(rng.integers(height)), int(rng.integers(width))
        pixels = rng.integers(top, height, count) * width + rng.integers(left, width, count)
        origin = int(grid.rows.cells[top, 0]), int(grid.columns.cells[left, 0])
        window = np.ascontiguousarray(features[origin[0] :, origin[1] :])
        found, expected = np.full((2, count), np.nan, np.float32)
        gpu.decode_pixels(window, origin, grid, pixels, weights, found)
        REFERENCE.decode_pixels(window, origin, grid, pixels, weights, expected)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        spread.append(np.ptp(expected) if count else 0)
    assert max(spread) > 0.01


@pytest.mark.parametrize(
    ("size_hw", "out_hw"), [((1, 1), (5, 4)), ((9, 7), (4, 13)), ((6, 8), (6, 8)), ((3, 1), (1, 9))]
)
def test_resize_bilinear(
    gpu: KernelSet, rng: np.random.Generator, size_hw: tuple[int, int], out_hw: tuple[int, int]
) -> None:
    for planes in (0, 1, 3):
        values = rng.standard_normal((planes, *size_hw)).astype(np.float32)
        found, expected = np.full((2, planes, *out_hw), np.nan, np.float32)
        gpu.resize_bilinear(values, found)
        REFERENCE.resize_bilinear(values, expected)
        # The definition emulates its fused multiply-adds, and rounds one in 2**29 twice.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        assert planes == 0 or (found == expected).mean() > 0.999


@pytest.mark.parametrize("shape", SHAPES)
def test_dilate(gpu: KernelSet, rng: np.random.Generator, shape: tuple[int, int]) -> None:
    for reach in (disk(0), disk(3), rng.integers(0, 9, 5), disk(40)):
        for density in (0, 0.05, 1):
            points = rng.random(shape) < density
            found, expected = np.full((2, *shape), True)
            gpu.dilate(points, reach, found)
            REFERENCE.dilate(points, reach, expected)
            np.testing.assert_array_equal(found, expected)


def test_a_whole_pipeline(gpu: KernelSet, rng: np.random.Generator, tiny_bundle: Path) -> None:
    rgb = rng.integers(0, 256, (18, 26, 3), dtype=np.uint8)
    options = {"points_per_side": 2}  # a prompt takes seconds in the simulator
    results = []
    for kernels in (gpu, sets.CPU):
        with SossPipeline(with_settings(open_bundle(tiny_bundle), options), threads=1, kernels=kernels) as pipeline:
            results.append(pipeline(rgb))
    found, expected = results
    assert found.segments.rles == expected.segments.rles
    assert len(found.segments) > 1
    np.testing.assert_array_equal(found.segments.stability_score, expected.segments.stability_score)
    np.testing.assert_array_equal(found.segment_classes, expected.segment_classes)
    np.testing.assert_array_equal(found.label, expected.label)


def test_arrays_on_the_device(gpu: KernelSet, rng: np.random.Generator) -> None:
    """They are read, and written, where they are."""
    from numba import cuda

    values, taps, one = rng.random((2, 4, 5), np.float32), resize_taps(4, 6, 0, 6), np.ones(2, np.float32)
    expected, out = np.empty((2, 6, 6), np.float32), cuda.to_device(np.zeros((2, 6, 6), np.float32))
    REFERENCE.sample_bilinear(values, taps, taps, one, one, expected)
    gpu.sample_bilinear(cuda.to_device(values), taps, taps, one, one, out)
    np.testing.assert_allclose(out.copy_to_host(), expected, rtol=1e-6)
    REFERENCE.resize_bilinear(values, expected)
    gpu.resize_bilinear(cuda.to_device(values), out)
    np.testing.assert_allclose(out.copy_to_host(), expected, rtol=1e-6)
    votes, counted = np.empty((2, 1, 2))
    gpu.count_votes(cuda.to_device(values), voting.runs_of([[3, 9]]), votes)
    REFERENCE.count_votes(values, voting.runs_of([[3, 9]]), counted)
    np.testing.assert_array_equal(votes, counted)
    with pytest.raises(ValueError, match="not C-contiguous"):
        gpu.resize_bilinear(cuda.to_device(np.asfortranarray(values)), out)


def test_refuses_wrong_arguments(gpu: KernelSet) -> None:
    """As the CPU's: the checks are the same functions."""
    runs, pixels = voting.runs_of([[3, 9]]), np.zeros((3, 4), np.uint8)
    with pytest.raises(ValueError, match="12 pixels"):
        gpu.count_votes(np.zeros((2, 3, 4), np.float32), voting.runs_of([[0, 14]]), np.empty((1, 2)))
    with pytest.raises(ValueError, match="order"):
        gpu.paint(runs, np.zeros(1, np.uint8), np.array([1]), pixels)
    with pytest.raises(ValueError, match="no pixels"):
        gpu.box_and_counts(np.zeros((0, 4), np.bool_))
    placement, box = Placement(32, (33, 32), (50, 50)), np.array([0, 0, 50, 3], np.int32)
    logits, score = np.zeros((1, 8, 8), np.float32), np.empty(1, np.float32)
    with pytest.raises(ValueError, match="cannot place"):
        gpu.measure_masks(logits, placement, np.zeros(3, np.float32), 0.0, score, box[None])
    with pytest.raises(ValueError, match="leaves the image"):
        gpu.mask_counts(Window(logits[0], 0, 0), 8, placement._replace(input_hw=(32, 32)), 0.0, box)
    with pytest.raises(ValueError, match=r"\[N, 4\]"):
        gpu.box_nms(np.zeros((3, 4), np.float32), np.zeros(2, np.float32), 0.5)
    found, decoded = np.zeros((5, 7), np.float32), np.zeros((5, 7), np.bool_)
    with pytest.raises(ValueError, match="margin"):
        gpu.settle_squares(found, decoded, 2, 0.6, np.zeros((2, 3), np.bool_))
    taps, one, out = resize_taps(5, 6, 0, 6), np.ones(1, np.float32), np.empty((1, 6, 6), np.float32)
    with pytest.raises(ValueError, match="leave an axis of 4"):
        gpu.sample_bilinear(np.zeros((1, 4, 5), np.float32), taps, taps, one, one, out)
    with pytest.raises(ValueError, match="products"):
        gpu.add_shifted(np.zeros((8, 1, 5, 5), np.float32), taps, taps, out)
    weights = decoder(np.random.default_rng(0), 4, 1)
    grid, features = Grid.of(axis_table(6, 3), axis_table(8, 4), weights), np.zeros((3, 4, 4), np.float32)
    with pytest.raises(ValueError, match="outside the picture"):
        gpu.decode_pixels(features, (0, 0), grid, np.array([48]), weights, one)
    with pytest.raises(ValueError, match="no pixels"):
        gpu.resize_bilinear(np.zeros((1, 0, 4), np.float32), out)
    with pytest.raises(ValueError, match="out"):
        gpu.dilate(decoded, disk(1), decoded[:4].copy())
