"""Time every kernel at the size of a 1080p region of interest, beside the plain version that defines its answer.

.venv/bin/pytest benchmarks/bench_kernels.py --benchmark-group-by=func

Add -m "gpu or not gpu" for the CUDA kernels; their time includes the way to the GPU and back.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.low_res import Placement, window_of
from maskrt.kernels.morphology.reference import contour, disk
from maskrt.kernels.pixel_decoder.tables import axis_table
from maskrt.kernels.pixel_decoder.types import DecoderWeights, Grid
from maskrt.kernels.sampling.reference import resize_taps
from maskrt.kernels.selections.reference import squares_of
from maskrt.kernels.sets import KernelSet
from maskrt.kernels.voting import runs_of
from maskrt.runtime.rle import encode_rle

HEIGHT, WIDTH = 1080, 1920
PLACEMENT = Placement(1024, (576, 1024), (HEIGHT, WIDTH))
THRESHOLDS = np.array([-1, 0, 1], np.float32)

SETS: dict[str, Callable[[], KernelSet]] = {
    "cpu": lambda: sets.CPU,
    "reference": lambda: sets.REFERENCE,
    "cuda": sets.cuda,
}

each = pytest.mark.parametrize(
    "kernels", ["cpu", "reference", pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True
)


@pytest.fixture
def kernels(request: pytest.FixtureRequest) -> KernelSet:
    return SETS[request.param]()


def measure(benchmark: Any, kernels: KernelSet, work: Callable[[KernelSet], NDArray[Any]]) -> None:
    """Check that `work` gives the plain set's answer on one set of kernels, then time it.

    The refiner adds float32 in another order, so its answers are equal up to rounding.
    """
    found, expected = work(kernels), work(sets.REFERENCE)
    if found.dtype == np.float32:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    else:
        assert np.array_equal(found, expected, equal_nan=True)
    benchmark.pedantic(work, args=(kernels,), rounds=5, warmup_rounds=1)


@pytest.fixture(scope="module")
def logits() -> NDArray[np.float32]:
    """Draw eight low-res masks like a decoder's: blobs with soft edges."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256].astype(np.float32)
    masks = []
    for _ in range(8):
        across, down = x - rng.uniform(30, 220), y - rng.uniform(30, 110)
        masks.append(rng.uniform(10, 50) - np.sqrt(across**2 + down**2) + rng.normal(0, 0.3, (256, 256)))
    return np.stack(masks).astype(np.float32)


@pytest.fixture(scope="module")
def masks() -> NDArray[np.bool_]:
    """Draw ellipses at full size, with specks and holes."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    found = []
    for _ in range(20):
        across, down = (x - rng.uniform(0, WIDTH)) / rng.uniform(50, 400), (y - rng.uniform(0, HEIGHT)) / 150
        found.append((across**2 + down**2 < 1) ^ (rng.random((HEIGHT, WIDTH), dtype=np.float32) < 1e-4))
    return np.stack(found)


@each
def test_resize_bilinear(benchmark: Any, kernels: KernelSet, logits: NDArray[np.float32]) -> None:
    def work(kernels: KernelSet) -> NDArray[np.float32]:
        out = np.empty((2, HEIGHT, WIDTH), np.float32)
        kernels.resize_bilinear(logits[:2], out)
        return out

    measure(benchmark, kernels, work)


@each
def test_measure_masks(benchmark: Any, kernels: KernelSet, logits: NDArray[np.float32]) -> None:
    def work(kernels: KernelSet) -> NDArray[np.float64]:
        stability, boxes = np.empty(len(logits), np.float32), np.empty((len(logits), 4), np.int32)
        kernels.measure_masks(logits, PLACEMENT, THRESHOLDS, 0.85, stability, boxes)
        return np.concatenate([stability[:, None], boxes], axis=1)

    measure(benchmark, kernels, work)


@each
def test_mask_counts(benchmark: Any, kernels: KernelSet, logits: NDArray[np.float32]) -> None:
    stability, boxes = np.empty(len(logits), np.float32), np.empty((len(logits), 4), np.int32)
    sets.CPU.measure_masks(logits, PLACEMENT, THRESHOLDS, 0.0, stability, boxes)

    def work(kernels: KernelSet) -> NDArray[np.int64]:
        found = [
            kernels.mask_counts(window_of(mask, PLACEMENT, box), 256, PLACEMENT, 0.0, box)
            for mask, box in zip(logits, boxes, strict=True)
        ]
        return np.concatenate(found)

    measure(benchmark, kernels, work)


@each
def test_box_nms(benchmark: Any, kernels: KernelSet) -> None:
    rng = np.random.default_rng(6)
    corners, sizes = rng.uniform(0, 1000, (600, 2)), rng.uniform(20, 300, (600, 2))
    boxes, scores = np.hstack([corners, corners + sizes]).astype(np.float32), rng.random(600).astype(np.float32)
    measure(benchmark, kernels, lambda kernels: kernels.box_nms(boxes, scores, 0.5))


@each
def test_box_and_counts(benchmark: Any, kernels: KernelSet, masks: NDArray[np.bool_]) -> None:
    measure(benchmark, kernels, lambda kernels: kernels.box_and_counts(masks[0])[1])


@each
@pytest.mark.parametrize("mode", ["holes", "islands"])
def test_remove_small_regions(benchmark: Any, kernels: KernelSet, masks: NDArray[np.bool_], mode: str) -> None:
    def work(kernels: KernelSet) -> NDArray[np.bool_]:
        out: NDArray[np.bool_] = np.empty_like(masks[0])
        kernels.remove_small_regions(masks[0], 5, mode, out)
        return out

    measure(benchmark, kernels, work)


@each
def test_count_votes(benchmark: Any, kernels: KernelSet, masks: NDArray[np.bool_]) -> None:
    occlusion = np.random.default_rng(2).random((HEIGHT, WIDTH), dtype=np.float32)
    probabilities = np.stack([1 - occlusion, occlusion])
    runs = runs_of([encode_rle(mask)["counts"] for mask in masks])

    def work(kernels: KernelSet) -> NDArray[np.float64]:
        votes = np.zeros((len(masks), 2), np.float64)
        kernels.count_votes(probabilities, runs, votes)
        return votes

    measure(benchmark, kernels, work)


@each
def test_paint(benchmark: Any, kernels: KernelSet, masks: NDArray[np.bool_]) -> None:
    runs = runs_of([encode_rle(mask)["counts"] for mask in masks])
    classes, order = (np.arange(len(masks)) % 3).astype(np.uint8), np.arange(len(masks))

    def work(kernels: KernelSet) -> NDArray[np.uint8]:
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        kernels.paint(runs, classes, order, label)
        return label

    measure(benchmark, kernels, work)


@each
def test_decode_pixels(benchmark: Any, kernels: KernelSet) -> None:
    """Decode one tile of the refiner, at the published width."""
    rng = np.random.default_rng(3)
    shapes = {"placed": (32, 6), "bias": (32,), "hidden": (3, 32, 32), "hidden_bias": (3, 32), "last": (32,)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) * np.float32(0.2) for name, shape in shapes.items()}
    weights = DecoderWeights(**arrays, last_bias=np.float32(0))
    grid = Grid.of(axis_table(256, 128), axis_table(256, 128), weights)
    features = rng.standard_normal((128, 128, 32)).astype(np.float32)
    pixels = np.arange(256 * 256)

    def work(kernels: KernelSet) -> NDArray[np.float32]:
        out = np.empty(pixels.size, np.float32)
        kernels.decode_pixels(features, (0, 0), grid, pixels, weights, out)
        return out

    measure(benchmark, kernels, work)


@each
def test_sample_bilinear(benchmark: Any, kernels: KernelSet) -> None:
    planes = np.random.default_rng(4).random((64, 66, 66), np.float32)
    taps, one = resize_taps(66, 130, 0, 130), np.ones(64, np.float32)

    def work(kernels: KernelSet) -> NDArray[np.float32]:
        out = np.empty((64, 130, 130), np.float32)
        kernels.sample_bilinear(planes, taps, taps, one, one, out)
        return out

    measure(benchmark, kernels, work)


@each
def test_add_shifted(benchmark: Any, kernels: KernelSet) -> None:
    products = np.random.default_rng(5).random((9, 256, 34, 34), np.float32)
    taps = resize_taps(34, 130, 0, 130)

    def work(kernels: KernelSet) -> NDArray[np.float32]:
        out = np.empty((256, 128, 128), np.float32)
        kernels.add_shifted(products, taps, taps, out)
        return out

    measure(benchmark, kernels, work)


@each
def test_dilate(benchmark: Any, kernels: KernelSet, masks: NDArray[np.bool_]) -> None:
    edges = contour(masks[0] & masks[0][::-1])

    def work(kernels: KernelSet) -> NDArray[np.bool_]:
        out = np.empty_like(edges)
        kernels.dilate(edges, disk(20), out)
        return out

    measure(benchmark, kernels, work)


@each
def test_region_boxes(benchmark: Any, kernels: KernelSet, masks: NDArray[np.bool_]) -> None:
    measure(benchmark, kernels, lambda kernels: kernels.region_boxes(masks[0]))


@each
def test_settle_squares(benchmark: Any, kernels: KernelSet, masks: NDArray[np.bool_]) -> None:
    def work(kernels: KernelSet) -> NDArray[np.float32]:
        found: NDArray[np.float32] = masks[0].astype(np.float32)
        decoded = np.zeros_like(masks[0])
        kernels.settle_squares(found, decoded, 8, 0.02, np.ones(squares_of(found.shape, 8), np.bool_))
        return found

    measure(benchmark, kernels, work)


@each
def test_patch_means(benchmark: Any, kernels: KernelSet) -> None:
    low = np.random.default_rng(7).random((1, 54, 96), np.float32)

    def work(kernels: KernelSet) -> NDArray[np.float32]:
        means = np.empty((1, 5, 8))
        kernels.patch_means(low, (432, 768), 96, means)
        return means.astype(np.float32)

    measure(benchmark, kernels, work)


@each
def test_gather_and_blend_patches(benchmark: Any, kernels: KernelSet) -> None:
    """Gather and blend eight windows of 96 pixels: two overlap, and one reaches over the border."""
    rng = np.random.default_rng(8)
    picture, table = rng.integers(0, 256, (432, 768, 3), dtype=np.uint8), rng.random((3, 256), np.float32)
    corners = np.array([[0, 0], [40, 60], *rng.integers(0, (336, 672), (5, 2)), [400, 700]])

    def work(kernels: KernelSet) -> NDArray[np.float32]:
        patches, blended = np.empty((8, 3, 96, 96), np.float32), np.zeros((1, 432, 768), np.float32)
        kernels.gather_patches(picture, corners, table, patches)
        kernels.blend_patches(np.ascontiguousarray(patches[:, :1]), corners, 12, blended)
        return blended

    measure(benchmark, kernels, work)


@each
def test_choose_windows(benchmark: Any, kernels: KernelSet) -> None:
    uncertainty = np.random.default_rng(9).random((54, 96))
    measure(benchmark, kernels, lambda kernels: kernels.choose_windows(uncertainty, 12, 8, 0.01))
