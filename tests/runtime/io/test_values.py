"""Values of pictures and masks are taken as they certainly are, or refused with the file's own numbers."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plain_tiff import write_tiff

from maskrt.runtime.errors import InputError
from maskrt.runtime.io.images import read_image
from maskrt.runtime.io.masks import read_labels, read_rough, read_truth

GREY = np.tile(np.linspace(0, 1, 32), (4, 1))
MASK = np.zeros((6, 8), bool)
MASK[1:4, 2:7] = True


def saved(path: Path, values: Any, **options: Any) -> Path:
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("values", "photometric", "expected"),
    [
        ((GREY * 255).astype(np.uint8), 1, (GREY * 255).astype(np.uint8)),
        (255 - (GREY * 255).astype(np.uint8), 0, (GREY * 255).astype(np.uint8)),
        (np.round(GREY * 255).astype(np.uint16) * 257, 1, np.round(GREY * 255)),
        (65535 - np.round(GREY * 255).astype(np.uint16) * 257, 0, np.round(GREY * 255)),
    ],
)
def test_tiffs_in_which_black_or_white_is_zero(
    tmp_path: Path, values: np.ndarray, photometric: int, expected: np.ndarray
) -> None:
    path = write_tiff(tmp_path / "a.tif", values, photometric)
    assert np.array_equal(read_image(path)[..., 0], expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((GREY * 0.9).astype(np.float32), r"holds floats, from 0 to 0\.9"),
        ((GREY * 65535).astype(np.float32), r"holds floats, from 0 to 65535"),
        ((GREY * 100).astype(np.int32), r"signed numbers, from 0 to 100"),
        ((GREY * 100).astype(np.uint32), r"32-bit numbers, from 0 to 100"),
        ((GREY * 100 - 50).astype(np.int16), r"signed numbers|of a kind"),
        ((GREY * 0.9).astype(np.float64), r"floats|of a kind"),
        ((GREY * 0.9).astype(np.float16), r"floats|of a kind"),
    ],
)
def test_numbers_without_a_scale_are_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    path = write_tiff(tmp_path / "a.tif", values)
    for read in (read_image, read_truth, read_rough):
        with pytest.raises(InputError, match=message):
            read(path)


@pytest.mark.parametrize("maxval", [100, 1023])
def test_a_ppm_is_scaled_by_the_white_that_it_states(tmp_path: Path, maxval: int) -> None:
    values = np.array([0, maxval // 2, maxval], ">u2" if maxval > 255 else "u1")
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 %d\n" % maxval + values.tobytes())
    found = read_image(tmp_path / "a.pgm")[0, :, 0].astype(int)
    assert np.abs(found - np.array([0, maxval // 2, maxval]) * 255 / maxval).max() <= 1


@pytest.mark.parametrize(("name", "options"), [("a.tif", {}), ("a.png", {}), ("a.webp", {"lossless": True})])
def test_several_pictures_in_a_file_are_refused(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    first, *rest = [Image.new("RGB", (16, 9), (40 * i + 20,) * 3) for i in range(5)]
    path = saved(tmp_path / name, first, save_all=True, append_images=rest, **options)
    with pytest.raises(InputError, match=r"holds 5 pictures .* write each into a file of its own"):
        read_image(path)


def test_a_thumbnail_is_no_second_picture(tmp_path: Path) -> None:
    image = Image.new("L", (16, 9), 90)
    image.save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (4, 2))])
    with pytest.raises(InputError, match="holds 2 pictures"):
        read_image(tmp_path / "a.tif")
    two = write_tiff(tmp_path / "b.tif", np.full((9, 16), 90, np.uint8), tags={254: (4, 1)}, pages=2)
    assert read_image(two)[0, 0, 0] == 90


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (MASK.astype(np.uint8), "brightest value is 1: a mask file has 0 and 255"),
        (MASK.astype(np.uint8) * 100, "brightest value is 100"),
        (MASK.astype(np.uint16), "brightest value is 1: a mask file has 0 and 65535"),
        (MASK.astype(np.uint16) * 100, "brightest value is 100"),
        (MASK.astype(np.uint16) * 255, "brightest value is 255: a mask file has 0 and 65535"),
        (np.where(MASK, 255, np.arange(8) % 3).astype(np.uint8), "has the values 0, 1, 2, 255"),
    ],
)
def test_masks_with_other_values_are_refused_with_their_own(tmp_path: Path, values: np.ndarray, message: str) -> None:
    path = saved(tmp_path / "a.png", values)
    with pytest.raises(InputError, match=message):
        read_truth(path)
    if "brightest" in message:
        with pytest.raises(InputError, match=r"brightest value is \d+: a mask has \d+; use --labels for class numbers"):
            read_rough(path)


def in_colour(colour: tuple[int, ...]) -> np.ndarray:
    return (MASK[..., None] * np.array(colour)).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (in_colour((255, 0, 0)), r"has colours, such as \(0, 0, 0\), \(255, 0, 0\)"),
        (np.dstack([np.full((*MASK.shape, 3), 255, np.uint8), MASK * np.uint8(255)]), "transparent in places"),
        (np.dstack([MASK * np.uint8(255), MASK * np.uint8(255)]), "transparent in places"),
    ],
)
def test_masks_in_colour_or_in_alpha_are_refused(tmp_path: Path, image: np.ndarray, message: str) -> None:
    path = saved(tmp_path / "a.png", image)
    for read in (read_truth, read_rough):
        with pytest.raises(InputError, match=message):
            read(path)


def palette(colours: list[tuple[int, int, int]], numbers: np.ndarray) -> Image.Image:
    image = Image.fromarray(numbers.astype(np.uint8), "P")
    image.putpalette([part for colour in colours for part in colour])
    return image


def test_a_palette_of_black_and_white_is_a_mask_and_others_are_not(tmp_path: Path) -> None:
    black_white = [(0, 0, 0), (255, 255, 255)]
    assert np.array_equal(read_truth(saved(tmp_path / "a.png", palette(black_white, MASK))), MASK)
    with pytest.raises(InputError, match="colours and numbers disagree"):
        read_truth(saved(tmp_path / "b.png", palette(black_white[::-1], MASK)))
    with pytest.raises(InputError, match="has colours"):
        read_truth(saved(tmp_path / "c.png", palette([(0, 0, 0), (200, 0, 0)], MASK)))


def test_what_certainly_is_a_mask_is_taken(tmp_path: Path) -> None:
    white = MASK * np.uint8(255)
    opaque = np.dstack([white, white, white, np.full_like(white, 255)])
    for name, image in {
        "grey.png": white,
        "rgb.png": np.dstack([white] * 3),
        "rgba.png": opaque,
        "deep.png": MASK.astype(np.uint16) * 65535,
        "one.png": Image.fromarray(MASK),
        "one.tif": Image.fromarray(MASK),
    }.items():
        path = saved(tmp_path / name, image)
        assert np.array_equal(read_truth(path), MASK), name
        assert np.array_equal(read_rough(path), MASK.astype(np.float32)), name
    path = write_tiff(tmp_path / "w.tif", 255 - white, photometric=0)
    assert np.array_equal(read_truth(path), MASK)


def test_labels_that_count_from_white_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="counts from white"):
        read_labels(write_tiff(tmp_path / "a.tif", MASK.astype(np.uint8), photometric=0))
    assert np.array_equal(read_labels(write_tiff(tmp_path / "b.tif", MASK.astype(np.uint8))), MASK)


def test_tiffs_that_cost_far_more_than_their_size_are_refused(tmp_path: Path) -> None:
    grey = np.zeros((1, 1), np.uint8)
    with pytest.raises(InputError, match="more than 1000 pages"):
        read_image(write_tiff(tmp_path / "pages.tif", grey, pages=1001))
    whole = write_tiff(tmp_path / "strips.tif", grey).read_bytes()
    strips = struct.pack("<HHI", 273, 4, 1)
    assert strips in whole
    (tmp_path / "strips.tif").write_bytes(whole.replace(strips, struct.pack("<HHI", 273, 4, 200_001)))
    with pytest.raises(InputError, match="cut into 200001 strips"):
        read_image(tmp_path / "strips.tif")
    (tmp_path / "tags.tif").write_bytes(whole[:8] + struct.pack("<H", 5000) + whole[10:])
    with pytest.raises(InputError, match="4096 tags"):
        read_image(tmp_path / "tags.tif")


@pytest.mark.parametrize("order", ["<", ">"])
def test_big_tiffs(tmp_path: Path, order: str) -> None:
    entries = [(256, 3, 2), (257, 3, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 16, 0), (277, 3, 1), (279, 4, 2)]
    at = 16 + 8 + 20 * len(entries) + 8
    tags = b""
    for number, kind, value in entries:
        form = {3: "H", 4: "I", 16: "Q"}[kind]
        tags += struct.pack(f"{order}HHQ", number, kind, 1) + struct.pack(order + form, value or at).ljust(8, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HHHQ", 43, 8, 0, 16)
    (tmp_path / "a.tif").write_bytes(head + struct.pack(order + "Q", len(entries)) + tags + bytes(8) + b"\x00\xff")
    if order == "<":
        assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 255]
    else:  # Pillow does not know these
        with pytest.raises(InputError, match="a TIFF of a kind that maskrt does not read"):
            read_image(tmp_path / "a.tif")


def test_12_bits_of_a_tiff_are_scaled_by_4095(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((1, 3), np.uint8), tags={256: (4, 2), 258: (3, 12)})
    data = path.read_bytes()
    path.write_bytes(data[:-3] + bytes([0xFF, 0xF8, 0x00]))  # 4095 and 2048
    assert read_image(path)[0, :, 0].tolist() == [255, 128]


def test_16_bits_of_a_colour_keep_the_high_byte(tmp_path: Path) -> None:
    values = np.array([[[0x12FF, 0x3400, 0xFFFF]]], np.uint16)
    assert read_image(write_tiff(tmp_path / "a.tif", values, photometric=2))[0, 0].tolist() == [0x12, 0x34, 0xFF]
