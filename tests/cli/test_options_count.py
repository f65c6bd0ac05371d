"""An option has an effect, or one line says why not: --kernels, and what a refiner does not take."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrt.kernels import sets

Maskrt = Callable[..., tuple[int, str, str]]
COMMANDS = pytest.mark.parametrize("command", ["run", "eval", "eval --masks", "verify", "verify --masks", "refine"])


@pytest.fixture
def call(maskrt: Maskrt, tiny_bundles: dict[str, Path], tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """call(command, *options) on a bundle that it takes and one picture with its truth and a rough mask."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (40, 30), (90, 90, 90)).save(tmp_path / "images" / "a.png")
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    masks = ("--masks", tmp_path / "masks")
    given: dict[str, tuple[object, ...]] = {
        "run": (tmp_path / "images", "--out", tmp_path / "out"),
        "eval": (tmp_path / "images", "--truth", tmp_path / "masks"),
        "eval --masks": (tmp_path / "images", "--truth", tmp_path / "masks", *masks),
        "verify": ("--image", tmp_path / "images" / "a.png"),
        "verify --masks": ("--image", tmp_path / "images" / "a.png", *masks),
        "refine": (tmp_path / "images", *masks, "--out", tmp_path / "out"),
    }

    def run(command: str, *options: object) -> tuple[int, str, str]:
        kind = "refine" if command == "refine" or "--masks" in command else "soss"
        return maskrt(command.split()[0], tiny_bundles[kind], *given[command], *options)

    return run


@COMMANDS
def test_unknown_kernels(call: Callable[..., tuple[int, str, str]], tmp_path: Path, command: str) -> None:
    assert call(command, "--kernels", "metal") == (2, "", "error: unknown kernels 'metal': choose cpu or cuda\n")
    assert not (tmp_path / "out").exists()


@COMMANDS
def test_cuda_without_a_gpu(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba import cuda

    monkeypatch.setattr(cuda, "is_available", lambda: False)
    monkeypatch.setattr(cuda, "cuda_error", lambda: "no driver here")
    sets.cuda.cache_clear()
    code, out, err = call(command, "--kernels", "cuda")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "NVIDIA GPU" in err
    assert err.endswith("; or use --kernels cpu\n")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@COMMANDS
def test_cpu_is_the_default(call: Callable[..., tuple[int, str, str]], command: str) -> None:
    code, out, err = call(command, "--kernels", "cpu")
    assert code == 0, out + err


def test_a_refined_mask_has_no_segments(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, _, err = call("refine", "--write", "mask,segments")
    assert (code, err) == (2, "error: a refined mask has no segments: leave segments out of --write\n")
    assert not (tmp_path / "out").exists()


def test_a_refiner_is_verified_on_whole_images(call: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = call("verify --masks", "--roi", "0,0,10,10")
    assert (code, err) == (2, "error: a refiner is checked on whole images: leave --roi or --masks out\n")


@pytest.mark.parametrize("option", ["--roi", "--roi-from", "--figures"])
def test_a_refiner_is_scored_on_whole_images(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path, option: str
) -> None:
    value = "0,0,10,10" if option == "--roi" else tmp_path / "masks"
    code, out, err = call("eval --masks", option, value)
    told = "--masks scores a refiner on whole images: leave --roi, --roi-from and --figures out"
    assert (code, out, err) == (2, "", f"error: {told}\n")
