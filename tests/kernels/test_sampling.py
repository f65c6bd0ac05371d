"""Bilinear sampling with aligned corners: against its definition, and against PyTorch."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from maskrt.kernels.sampling import cpu, reference
from maskrt.kernels.sampling.reference import resize_taps
from maskrt.kernels.sampling.types import OUTSIDE, Taps

IMPLEMENTATIONS = [cpu, reference]


def sampled(
    module: ModuleType, planes: NDArray[Any], rows: Taps, columns: Taps, scale: float = 1, offset: float = 0
) -> NDArray[np.float32]:
    out = np.full((len(planes), rows.low.size, columns.low.size), np.nan, np.float32)
    of_each = np.arange(1, len(planes) + 1, dtype=np.float32)
    module.sample_bilinear(planes, rows, columns, of_each * np.float32(scale), of_each * np.float32(offset), out)
    return out


def random_taps(rng: np.random.Generator, size: int, places: int) -> Taps:
    """Any two values blended, in any order; one place in four is outside."""
    low, high = rng.integers(0, size, (2, places))
    outside = rng.random(places) < 0.25
    share = rng.random(places).astype(np.float32)
    return Taps(np.where(outside, OUTSIDE, low), np.where(outside, OUTSIDE, high), share)


def random_planes(rng: np.random.Generator, dtype: type, channels: int, height: int, width: int) -> NDArray[Any]:
    if dtype is np.uint8:
        return rng.integers(0, 256, (height, width, channels), dtype=np.uint8).transpose(2, 0, 1)
    return rng.standard_normal((channels, height + 2, 2 * width)).astype(np.float32)[:, 1:-1, ::2]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_equal_to_the_definition(rng: np.random.Generator, dtype: type) -> None:
    """Planes are not contiguous, taps are random."""
    for _ in range(30):
        channels, height, width = (int(size) for size in rng.integers(1, (5, 40, 40)))
        planes = random_planes(rng, dtype, channels, height, width)
        rows, columns = random_taps(rng, height, int(rng.integers(1, 60))), random_taps(rng, width, 33)
        scale, offset = float(rng.uniform(0.01, 2)), float(rng.normal())
        expected = sampled(reference, planes, rows, columns, scale, offset)
        found = sampled(cpu, planes, rows, columns, scale, offset)
        largest = float(np.abs(planes.astype(np.float32)).max()) * scale * channels + abs(offset) * channels
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * largest)
        outside = (rows.low == OUTSIDE)[:, None] | (columns.low == OUTSIDE)
        assert (found[:, outside] == 0).all()
        assert (expected[:, outside] == 0).all()


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_an_answer_written_out(module: ModuleType) -> None:
    planes = np.array([[[0, 10, 20], [100, 110, 120]]], np.uint8)
    half = np.array([0.5], np.float32)
    rows = Taps(np.array([0]), np.array([1]), half)
    columns = Taps(np.array([1, OUTSIDE]), np.array([2, OUTSIDE]), np.array([0.25, 0], np.float32))
    assert sampled(module, planes, rows, columns, 2, -1).tolist() == [[[2 * 62.5 - 1, 0]]]


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_nothing_inside_and_no_places(module: ModuleType) -> None:
    planes = np.ones((2, 3, 4), np.float32)
    nowhere = resize_taps(4, 8, 8, 11)
    assert (sampled(module, planes, resize_taps(3, 5, 0, 5), nowhere, 1, 7) == 0).all()
    assert (sampled(module, planes, resize_taps(3, 5, -4, 0), resize_taps(4, 8, 0, 3), 1, 7) == 0).all()
    assert sampled(module, planes, resize_taps(3, 5, 2, 2), resize_taps(4, 8, 0, 8)).shape == (2, 0, 8)
    assert sampled(module, planes, resize_taps(3, 5, 0, 2), resize_taps(4, 8, 3, 3)).shape == (2, 2, 0)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_resize_is_pytorchs(rng: np.random.Generator, module: ModuleType) -> None:
    torch = pytest.importorskip("torch", reason="needs maskrt[export]")
    sizes = [(1, 7), (7, 1), (1, 1), (2, 300), (300, 2), (64, 64), (37, 12)]
    sizes += [tuple(pair) for pair in rng.integers(1, 130, (20, 2)).tolist()]
    for height, out_height in sizes:
        width, out_width = (int(size) for size in rng.integers(1, 90, 2))
        planes = rng.standard_normal((2, height, width)).astype(np.float32)
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(planes)[None], (out_height, out_width), mode="bilinear", align_corners=True
        )[0].numpy()
        rows, columns = resize_taps(height, out_height, 0, out_height), resize_taps(width, out_width, 0, out_width)
        found = sampled(module, planes, rows, columns)
        np.testing.assert_allclose(found[0], expected[0], atol=2e-5)
        np.testing.assert_allclose(found[1], 2 * expected[1], atol=4e-5)
        assert rows.low[0] == 0
        if out_height > 1:
            assert rows.high[-1] == height - 1


def test_a_window_of_a_resize_is_a_part_of_it(rng: np.random.Generator) -> None:
    for _ in range(50):
        size, out_size = (int(n) for n in rng.integers(1, 60, 2))
        first, end = sorted(int(n) for n in rng.integers(-20, 80, 2))
        whole, window = resize_taps(size, out_size, 0, out_size), resize_taps(size, out_size, first, end)
        places = np.arange(first, end)
        inside = (places >= 0) & (places < out_size)
        for name in ("low", "high"):
            index = getattr(window, name)
            assert (index[~inside] == OUTSIDE).all()
            assert index[inside].tolist() == getattr(whole, name)[places[inside]].tolist()
        assert window.share[inside].tolist() == whole.share[places[inside]].tolist()
        assert window.share.dtype == np.float32


def test_taps_through_an_index(rng: np.random.Generator) -> None:
    """Sampling an axis of places is sampling a copy that is made by them."""
    places = rng.integers(0, 12, 30)
    planes = rng.standard_normal((1, 1, 12)).astype(np.float32)
    taps, row = resize_taps(30, 17, -3, 20), resize_taps(1, 1, 0, 1)
    through = taps.through(places)
    for module in IMPLEMENTATIONS:
        expected = sampled(module, planes[:, :, places], row, taps)
        np.testing.assert_allclose(sampled(module, planes, row, through), expected, rtol=1e-6, atol=1e-6)
    assert (through.low == OUTSIDE).tolist() == (taps.low == OUTSIDE).tolist()
    assert (through.low[:3] == OUTSIDE).all()


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_refuses_wrong_arguments(module: ModuleType) -> None:
    planes, taps = np.zeros((2, 4, 5), np.float32), resize_taps(4, 4, 0, 4)
    two, out = np.zeros(2, np.float32), np.empty((2, 4, 4), np.float32)
    sample = module.sample_bilinear
    sample(planes, taps, taps, two, two, out)
    past = Taps(np.array([0, 0, 0, 4]), taps.high, taps.share)
    below = Taps(taps.low, np.array([0, 0, 0, -2]), taps.share)
    for bad in (past, below):
        with pytest.raises(ValueError, match=r"rows: taps .* leave an axis of 4"):
            sample(planes, bad, taps, two, two, out)
    with pytest.raises(ValueError, match="columns: taps 0 to 4 leave an axis of 4"):
        sample(planes[:, :, :4], taps, past, two, two, out)
    with pytest.raises(ValueError, match="planes: expected float32 or uint8"):
        sample(planes.astype(np.float64), taps, taps, two, two, out)
    with pytest.raises(ValueError, match="planes: expected float32 or uint8"):
        sample(planes[0], taps, taps, two, two, out)
    with pytest.raises(ValueError, match="out"):
        sample(planes, taps, taps, two, two, out[:, :3])
    with pytest.raises(ValueError, match="scale"):
        sample(planes, taps, taps, two[:1], two, out)
    with pytest.raises(ValueError, match="offset"):
        sample(planes, taps, taps, two, two.astype(np.float64), out)
    with pytest.raises(ValueError, match=r"columns\.share"):
        sample(planes, taps, Taps(taps.low, taps.high, taps.share[:2]), two, two, out)
    with pytest.raises(ValueError, match="rows"):
        sample(planes, Taps(taps.low, taps.high[:2], taps.share), taps, two, two, out)


@pytest.mark.parametrize("size_hw", [(5, 7), (1, 1), (2, 9), (30, 3)])
def test_shifted_sums_are_a_convolution(rng: np.random.Generator, size_hw: tuple[int, int]) -> None:
    """The reference is the map scaled up by PyTorch, padded with zeros; windows lie at every edge and within."""
    torch = pytest.importorskip("torch", reason="needs maskrt[export]")
    functional = torch.nn.functional
    weight = rng.standard_normal((6, 4, 3, 3)).astype(np.float32)
    coarse = rng.standard_normal((4, *size_hw)).astype(np.float32)
    height, width = 23, 31
    large = functional.interpolate(torch.from_numpy(coarse)[None], (height, width), mode="bilinear", align_corners=True)
    expected = functional.conv2d(large, torch.from_numpy(weight), padding=1)[0].numpy()
    products = np.ascontiguousarray(np.einsum("oiyx,ihw->yxohw", weight, coarse).reshape(9, 6, *size_hw))
    for top, bottom, left, right in ((0, height, 0, width), (0, 9, 5, 20), (11, height, 20, width), (7, 8, 30, width)):
        rows = resize_taps(size_hw[0], height, top - 1, bottom + 1)
        columns = resize_taps(size_hw[1], width, left - 1, right + 1)
        for module in IMPLEMENTATIONS:
            found = np.full((6, bottom - top, right - left), np.nan, np.float32)
            module.add_shifted(products, rows, columns, found)
            np.testing.assert_allclose(found, expected[:, top:bottom, left:right], rtol=0, atol=3e-5)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_shifted_sums_refuse_wrong_arguments(module: ModuleType) -> None:
    products, taps = np.zeros((9, 2, 4, 4), np.float32), resize_taps(4, 6, 0, 6)
    out = np.empty((2, 4, 4), np.float32)
    module.add_shifted(products, taps, taps, out)
    for arguments in (
        (products[:8], taps, taps, out),
        (products.astype(np.float64), taps, taps, out),
        (products[:, :, :3].copy(), taps, taps, out),
        (products, taps, resize_taps(4, 5, 0, 5), out),
        (products, taps, taps, out[:1]),
    ):
        with pytest.raises(ValueError, match=r"products|out|rows|columns"):
            module.add_shifted(*arguments)
