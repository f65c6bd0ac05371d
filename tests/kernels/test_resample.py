"""Bilinear resizing: against the NumPy definition and against PyTorch, bit for bit where its kernel is the same."""

import numpy as np
import pytest
import torch

from maskrt.kernels.resample import cpu, reference

SIZES = [
    ((32, 32), (128, 128)),
    ((128, 77), (200, 31)),
    ((256, 256), (1024, 1024)),
    ((1024, 576), (480, 270)),
    ((64, 64), (640, 360)),
    ((13, 130), (13, 391)),
    ((97, 50), (97, 50)),
    ((1, 1), (100, 100)),
    ((1, 9), (3, 400)),
    ((9, 1), (400, 3)),
    ((300, 200), (1, 150)),
]


def torch_resize(values, size_hw):
    resized = torch.nn.functional.interpolate(torch.from_numpy(values)[None], size_hw, mode="bilinear")
    return resized[0].numpy()


@pytest.mark.parametrize(("size_hw", "out_hw"), SIZES)
@pytest.mark.parametrize("planes", [1, 3])
def test_equal_to_reference_and_torch(rng, size_hw, out_hw, planes):
    values = rng.standard_normal((planes, *size_hw)).astype(np.float32) * 10
    out, expected = np.full((2, planes, *out_hw), np.nan, np.float32)
    cpu.resize_bilinear(values, out)
    reference.resize_bilinear(values, expected)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-4)
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):  # compiled with fused multiply-add
        np.testing.assert_array_equal(out, torch_resize(values, out_hw))
        assert (expected == out).mean() > 0.9999  # the emulated fused multiply-add may round once more


def test_small_outputs_differ_from_torch_in_the_last_bits_only(rng):
    for _ in range(40):
        height, width, out_height, out_width = rng.integers(1, 60, 4).tolist()
        values = rng.standard_normal((2, height, width)).astype(np.float32)
        out = np.empty((2, out_height, out_width), np.float32)
        cpu.resize_bilinear(values, out)
        np.testing.assert_allclose(out, torch_resize(values, (out_height, out_width)), rtol=0, atol=2e-6)


def test_no_planes():
    cpu.resize_bilinear(np.empty((0, 4, 4), np.float32), np.empty((0, 8, 8), np.float32))


@pytest.mark.parametrize("resize", [cpu.resize_bilinear, reference.resize_bilinear])
@pytest.mark.parametrize(
    ("values", "out"),
    [
        (np.zeros((1, 4, 4)), np.zeros((1, 8, 8), np.float32)),
        (np.zeros((4, 4), np.float32), np.zeros((1, 8, 8), np.float32)),
        (np.zeros((2, 4, 4), np.float32), np.zeros((1, 8, 8), np.float32)),
        (np.zeros((1, 0, 4), np.float32), np.zeros((1, 8, 8), np.float32)),
        (np.zeros((1, 4, 8), np.float32)[:, :, ::2], np.zeros((1, 8, 8), np.float32)),
    ],
)
def test_refuses_wrong_arrays(resize, values, out):
    with pytest.raises(ValueError, match=r"expected|no pixels"):
        resize(values, out)
