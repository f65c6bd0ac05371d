"""Every kind of file that a folder of pictures can hold, good and bad."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrt.runtime.errors import InputError
from maskrt.runtime.io.images import read_image
from maskrt.runtime.io.masks import read_truth


def saved(path: Path, image: Image.Image | np.ndarray, **options: Any) -> Path:
    """The path, with the image in it."""
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


@pytest.fixture
def rgb(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (7, 11, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_lossless_formats_come_back_equal(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    assert np.array_equal(read_image(saved(tmp_path / f"a.{suffix}", rgb)), rgb)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats(tmp_path: Path, suffix: str) -> None:
    flat = np.full((16, 16, 3), 90, np.uint8)
    assert np.abs(read_image(saved(tmp_path / f"a.{suffix}", flat)).astype(int) - 90).max() <= 2


@pytest.mark.parametrize(("suffix", "dtype"), [("png", "<u2"), ("tif", "<u2"), ("pgm", "<u2")])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, suffix: str, dtype: str) -> None:
    values = np.array([[0, 128, 129, 257], [30000, 65278, 65407, 65535]], dtype)
    image = read_image(saved(tmp_path / f"a.{suffix}", values))
    assert image.tolist() == np.repeat(np.round(values / 257).astype(int)[..., None], 3, 2).tolist()
    assert (image[0, 0, 0], image[0, 3, 0], image[1, 3, 0]) == (0, 1, 255)


def test_big_endian_16_bit_tiff(tmp_path: Path) -> None:
    values = np.array([[0, 65535]], ">u2")
    assert read_image(saved(tmp_path / "a.tif", Image.frombytes("I;16B", (2, 1), values.tobytes())))[
        ..., 0
    ].tolist() == [[0, 255]]


def test_32_bit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="convert it to 8 or 16 bits"):
        read_image(saved(tmp_path / "a.tif", np.array([[1 << 20]], np.int32)))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, rgb: np.ndarray, mode: str) -> None:
    image = Image.fromarray(rgb).convert(mode)
    path = saved(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), image)
    assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))
    assert read_image(path).shape == rgb.shape


def test_alpha_is_dropped_and_colours_stay(tmp_path: Path) -> None:
    pixel = np.array([[[10, 20, 30, 0]]], np.uint8)
    assert read_image(saved(tmp_path / "a.png", pixel)).tolist() == [[[10, 20, 30]]]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_rotation_is_applied(
    tmp_path: Path, rgb: np.ndarray, orientation: int, upright: Callable[[np.ndarray], np.ndarray]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_image(saved(tmp_path / "a.png", rgb, exif=exif)), upright(rgb))


def test_exif_rotation_of_16_bit_grey(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 257
    image = read_image(saved(tmp_path / "a.png", values, exif=exif))
    assert image[..., 0].tolist() == np.rot90(np.arange(6).reshape(2, 3), -1).tolist()


@pytest.mark.parametrize("size_hw", [(1, 1), (2, 30000), (30000, 2)])
def test_odd_sizes(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    assert read_image(saved(tmp_path / "a.png", np.zeros((*size_hw, 3), np.uint8))).shape == (*size_hw, 3)


def png_with_header(width: int, height: int) -> bytes:
    """A PNG whose header states a size, with next to no pixel data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [7072, 30000, 2**31 - 1])
@pytest.mark.filterwarnings("error")
def test_bombs_are_refused_from_the_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png_with_header(side, side))
    with pytest.raises(
        InputError, match=r"over the limit of 50 megapixels: if you trust it, use --max-megapixels \d+$"
    ):
        read_image(tmp_path / "a.png")


def test_the_cap_is_inclusive_and_can_be_raised(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.zeros((10, 10, 3), np.uint8))
    assert read_image(path, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(InputError, match="10 x 10"):
        read_image(path, max_pixels=99)


def test_no_pillow_limit_is_left_changed(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    read_image(saved(tmp_path / "a.png", np.zeros((1, 1, 3), np.uint8)))
    assert before == Image.MAX_IMAGE_PIXELS


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"hello, not an image", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded|not an image"),
        (png_with_header(0, 5), "cannot be decoded|no pixels|not an image"),
        (png_with_header(5, 5), "cannot be decoded"),
        (jpeg()[:-600], "cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    ],
)
def test_bad_files_are_named_with_a_mend(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ward7.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_image(path)
    assert "ward7.jpg" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_png_cut_or_flipped_anywhere_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    whole = saved(tmp_path / "a.png", pixels).read_bytes()
    for at in range(1, len(whole) - 12, 37):  # the last 12 bytes end the file and hold no pixels
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]):
            (tmp_path / "b.png").write_bytes(damaged)
            with pytest.raises(InputError):
                read_image(tmp_path / "b.png")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(InputError, match=r"no such file|not a plain file"):
            read_image(path)


def test_truth(tmp_path: Path) -> None:
    grey = np.array([[0, 127, 128, 255]], np.uint8)
    expected = [[False, False, True, True]]
    assert read_truth(saved(tmp_path / "a.png", grey)).tolist() == expected
    assert read_truth(saved(tmp_path / "b.png", np.repeat(grey[..., None], 3, 2))).tolist() == expected
    assert read_truth(saved(tmp_path / "c.png", grey.astype(np.uint16) * 257)).tolist() == expected
    assert read_truth(saved(tmp_path / "d.png", Image.fromarray(grey > 127))).tolist() == expected
    assert not read_truth(saved(tmp_path / "e.png", np.zeros((3, 3), np.uint8))).any()


def test_class_numbers_are_no_truth(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="brightest value is 1: a mask file has 0 and 255"):
        read_truth(saved(tmp_path / "a.png", np.array([[0, 1]], np.uint8)))
