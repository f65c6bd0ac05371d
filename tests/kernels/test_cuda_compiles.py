"""Every CUDA kernel through the real compiler, which needs no GPU: the simulator knows no types and fuses nothing."""

import pkgutil
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import maskrt.kernels
from maskrt.kernels import voting
from maskrt.kernels.low_res import Placement, window_of
from maskrt.kernels.pixel_decoder.tables import axis_table
from maskrt.kernels.pixel_decoder.types import DecoderWeights, Grid
from maskrt.kernels.sampling.reference import resize_taps

CAPABILITY = (7, 5)  # the oldest that CUDA 13 compiles for


def cuda_modules() -> dict[str, Any]:
    families = [found.name for found in pkgutil.iter_modules(maskrt.kernels.__path__) if found.ispkg]
    folders = [(name, import_module(f"maskrt.kernels.{name}").__path__) for name in families]
    with_cuda = [name for name, path in folders if any(found.name == "cuda" for found in pkgutil.iter_modules(path))]
    return {name: import_module(f"maskrt.kernels.{name}.cuda") for name in with_cuda}


def call_everything(modules: dict[str, Any]) -> None:
    """Each kernel once; answers are not made."""

    def floats(*shape: int) -> np.ndarray:
        return np.ones(shape, np.float32)

    runs, mask = voting.runs_of([[3, 9]]), np.ones((3, 4), np.bool_)
    modules["voting"].count_votes(floats(2, 3, 4), runs, np.empty((1, 2)))
    modules["voting"].paint(runs, np.ones(1, np.uint8), np.zeros(1, np.int64), np.zeros((3, 4), np.uint8))
    modules["mask_stats"].box_and_counts(mask)
    modules["resample"].resize_bilinear(floats(2, 3, 4), floats(2, 5, 6))
    placement, box = Placement(64, (64, 40), (50, 90)), np.zeros((2, 4), np.int32)
    modules["low_res"].measure_masks(floats(2, 16, 16), placement, floats(3), 0.5, floats(2), box)
    modules["low_res"].mask_counts(window_of(floats(16, 16), placement, box[0]), 16, placement, 0.0, box[0])
    modules["nms"].box_nms(floats(5, 4), floats(5), 0.5)
    taps = resize_taps(3, 6, 0, 6)
    for planes in (floats(2, 3, 3), np.ones((2, 3, 3), np.uint8)):
        modules["sampling"].sample_bilinear(planes, taps, taps, floats(2), floats(2), floats(2, 6, 6))
    modules["sampling"].add_shifted(floats(9, 2, 3, 3), taps, taps, floats(2, 4, 4))
    shapes = {"placed": (8, 6), "bias": (8,), "hidden": (2, 8, 8), "hidden_bias": (2, 8), "last": (8,)}
    weights = DecoderWeights(**{name: floats(*shape) for name, shape in shapes.items()}, last_bias=np.float32(1))
    grid = Grid.of(axis_table(4, 2), axis_table(6, 3), weights)
    modules["pixel_decoder"].decode_pixels(floats(2, 3, 8), (0, 0), grid, np.arange(24), weights, floats(24))
    modules["selections"].settle_squares(floats(3, 4), mask, 2, 0.1, np.ones((1, 2), np.bool_))
    corners = np.zeros((2, 2), np.int64)
    modules["patches"].patch_means(floats(2, 3, 4), (8, 6), 4, np.empty((2, 2, 2)))
    modules["patches"].gather_patches(np.ones((8, 6, 3), np.uint8), corners, floats(3, 256), floats(2, 3, 4, 4))
    modules["patches"].blend_patches(floats(2, 1, 4, 4), corners, 2, floats(1, 8, 6))
    modules["morphology"].dilate(mask, np.ones(3, np.int64), mask.copy())


@pytest.fixture(scope="module")
def assembly() -> dict[str, str]:
    """Kernel -> its PTX, as module.function; arrays on the device are NumPy's, and launching one compiles it."""
    from numba import cuda, typeof
    from numba.cuda import dispatcher

    from maskrt.kernels import device

    modules, found = cuda_modules(), {}

    def launch(kernel: Any, tasks: int, *arguments: Any) -> None:
        python = kernel.py_func
        signature = tuple(map(typeof, arguments))
        code, _ = cuda.compile(python, signature, device=False, abi="numba", cc=CAPABILITY)
        found[f"{python.__module__.split('.')[-2]}.{python.__name__}"] = code

    @contextmanager
    def written(out: Any) -> Any:
        yield out

    with pytest.MonkeyPatch.context() as patch:
        # Functions that a kernel calls are compiled for the GPU at hand, of which only the capability is asked.
        patch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=CAPABILITY))
        patch.setattr(device, "launch", launch)
        patch.setattr(device, "to_device", np.ascontiguousarray)
        patch.setattr(device, "empty", np.zeros)
        patch.setattr(device, "full", np.full)
        patch.setattr(device, "to_host", lambda array, out=None: array.copy())
        patch.setattr(device, "written", written)
        call_everything(modules)
    kernels = {
        f"{name}.{value.py_func.__name__}"
        for name, module in modules.items()
        for value in vars(module).values()
        if isinstance(value, dispatcher.CUDADispatcher) and not value.targetoptions.get("device")
    }
    assert kernels <= found.keys()
    return found


def count(code: str, instruction: str) -> int:
    return sum(line.split()[:1] == [instruction] for line in code.splitlines())


def test_all_compile(assembly: dict[str, str]) -> None:
    assert "pixel_decoder.decode" in assembly  # which no module holds: it is made for each number of channels
    assert all(".visible .entry" in code for code in assembly.values())


@pytest.mark.parametrize("kernel", ["selections._settle", "nms._compare", "patches._blend"])
def test_products_are_rounded(assembly: dict[str, str], kernel: str) -> None:
    assert count(assembly[kernel], "mul.rn.f32") > 0
    assert count(assembly[kernel], "fma.rn.f32") == 0


@pytest.mark.parametrize("kernel", ["resample._resize", "low_res._draw"])
def test_a_lerp_is_one_product_and_one_fused(assembly: dict[str, str], kernel: str) -> None:
    code = assembly[kernel]
    assert count(code, "fma.rn.f32") == count(code, "mul.f32") > 0
    assert count(code, "add.f32") == 0
