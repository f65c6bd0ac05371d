"""Video frames as pictures: upright, in the right colours, or refused."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_video import decoded, reasons, write_video
from numpy.typing import NDArray

from maskrt.runtime.io.sources import open_source
from maskrt.runtime.types import Frame

ONE = 1 << 16
# Kr and Kb of ITU-T H.273 by the number of its matrix; 2 is "not stated", which FFmpeg takes for BT.601.
LUMA = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def turned(path: Path, a: int, b: int, c: int, d: int, u: int = 0) -> Path:
    """Write the matrix by which players show it into the header of an MP4's track; return a copy's path."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    struct.pack_into(">9i", data, at + 4 + (20 if data[at] == 0 else 32) + 16, a, b, u, c, d, 0, 0, 0, 1 << 30)
    copy = path.with_name("turned.mp4")
    copy.write_bytes(data)
    return copy


def good(path: Path) -> list[NDArray[np.uint8]]:
    """Return the pixels of every frame, all of them good."""
    items = decoded(path)
    assert all(isinstance(item, Frame) for item in items)
    return [item.rgb for item in items if isinstance(item, Frame)]


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((ONE, 0, 0, ONE), lambda rgb: rgb),
        ((0, ONE, -ONE, 0), lambda rgb: np.rot90(rgb, -1)),  # a telephone held upright
        ((-ONE, 0, 0, -ONE), lambda rgb: np.rot90(rgb, 2)),
        ((0, -ONE, ONE, 0), lambda rgb: np.rot90(rgb, 1)),
        ((-ONE, 0, 0, ONE), lambda rgb: rgb[:, ::-1]),
        ((ONE, 0, 0, -ONE), lambda rgb: rgb[::-1]),
        ((0, ONE, ONE, 0), lambda rgb: rgb.transpose(1, 0, 2)),
        ((0, -ONE, -ONE, 0), lambda rgb: np.rot90(rgb, 2).transpose(1, 0, 2)),
    ],
)
def test_frames_are_upright(tmp_path: Path, matrix: tuple[int, int, int, int], upright: Any) -> None:
    plain = write_video(tmp_path / "v.mp4", 3, "mpeg4", "yuv420p")
    found = good(turned(plain, *matrix))
    for before, after in zip(good(plain), found, strict=True):
        np.testing.assert_array_equal(after, upright(before))
        assert after.flags.c_contiguous


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ((46341, 46341, -46341, 46341, 0), "asks to be shown turned by 45 degrees or distorted"),
        ((ONE, 0, 0, ONE, 1 << 20), "asks to be shown turned by 0 degrees or distorted"),
        ((0, 0, 0, 0, 0), "asks to be shown turned by no certain angle or distorted"),
        ((ONE, 0, ONE, 0, 0), "asks to be shown turned by 0 degrees or distorted"),
    ],
)
def test_odd_angles_are_refused(tmp_path: Path, matrix: tuple[int, int, int, int, int], said: str) -> None:
    plain = write_video(tmp_path / "v.mp4", 3, "mpeg4", "yuv420p")
    assert reasons(turned(plain, *matrix)) == [f"{said}: turn it to a multiple of 90 degrees first"]


def blocks(path: Path, pix_fmt: str, matrix: int, full: bool, transfer: int = 2) -> NDArray[np.float64]:
    """Write flat blocks of 16 x 16 in random colours without loss; return RGB by the plain formula, float [4, 6, 3]."""
    av = pytest.importorskip("av")
    bits = 10 if "10" in pix_fmt else 8
    colours = np.random.default_rng(matrix).integers(40, 216, (3, 4, 6)) << (bits - 8)
    planes = np.repeat(np.repeat(colours, 16, 1), 16, 2)
    dtype = np.dtype(np.uint16 if bits == 10 else np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        frame = av.VideoFrame(96, 64, pix_fmt)
        for target in (stream.codec_context, frame):
            target.colorspace, target.color_range, target.color_trc = matrix, 2 if full else 1, transfer
        for index, plane in enumerate(frame.planes):
            step = 1 if index == 0 or "444" in pix_fmt else 2
            rows = np.zeros((plane.height, plane.line_size // dtype.itemsize), dtype)
            rows[:, : plane.width] = planes[index, ::step, ::step]
            plane.update(rows.tobytes())
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    y, cb, cr = colours / (1 << (bits - 8))
    y, cb, cr = (
        (y / 255, (cb - 128) / 255, (cr - 128) / 255)
        if full
        else (
            (y - 16) / 219,
            (cb - 128) / 224,
            (cr - 128) / 224,
        )
    )
    kr, kb = LUMA[matrix]
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    rgb = np.stack([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue], axis=-1)
    return np.clip(255 * rgb, 0, 255)


@pytest.mark.parametrize("matrix", list(LUMA))
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("pix_fmt", "most"), [("yuv444p", 1.0), ("yuv420p", 3.5), ("yuv420p10le", 3.5)])
def test_colours(tmp_path: Path, matrix: int, full: bool, pix_fmt: str, most: float) -> None:
    expected = blocks(tmp_path / "v.mkv", pix_fmt, matrix, full)
    (rgb,) = good(tmp_path / "v.mkv")
    centres = rgb.reshape(4, 16, 6, 16, 3)[:, 8, :, 8].astype(float)
    # FFmpeg's own conversion of 4:2:0 is rounded to 6 bits; a wrong matrix is off by 24 and more.
    assert np.abs(centres - expected).max() <= most


@pytest.mark.parametrize(("transfer", "name"), [(16, "HDR (PQ)"), (18, "HDR (HLG)"), (8, "linear light")])
def test_pictures_not_made_for_a_usual_screen_are_refused(tmp_path: Path, transfer: int, name: str) -> None:
    blocks(tmp_path / "v.mkv", "yuv420p10le", 9, False, transfer)
    assert reasons(tmp_path / "v.mkv") == [f"is {name}: convert it to standard range (SDR, BT.709) first"]


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("ffv1", "gray16le"), ("ffv1", "gray10le"), ("png", "gray16be"), ("png", "ya16be")]
)
def test_deep_grey_is_no_picture(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    path = write_video(tmp_path / ("v.mkv" if codec == "ffv1" else "v.mov"), 3, codec, pix_fmt)
    (reason,) = reasons(path)
    assert f"holds {pix_fmt}, a measurement such as depth or infrared and not a colour picture" in reason


def test_grey_of_8_bits_is_repeated(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", 2, "ffv1", "gray")
    rgb = good(tmp_path / "v.mkv")[0]
    assert rgb[:, 0:8].min() > 180
    assert (rgb[..., :1] == rgb).all()


def test_alpha_is_dropped_and_the_colours_stay(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    rgba = np.random.default_rng(0).integers(0, 256, (48, 64, 4), dtype=np.uint8)
    with av.open(str(tmp_path / "v.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        container.mux(stream.encode())
    np.testing.assert_array_equal(good(tmp_path / "v.mov")[0], rgba[..., :3])


def notes_of(path: Path) -> tuple[str, ...]:
    with open_source(str(path)) as source:
        assert all(isinstance(item, Frame) for item in source)
        return source.notes


def test_pixels_that_are_not_square_stay_and_are_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 3, "mpeg4", "yuv420p", sample_aspect_ratio=Fraction(4, 3))
    assert good(path)[0].shape == (48, 64, 3)
    assert notes_of(path) == (f"{path}: pixels are 4:3, not square; they are used as stored",)


def test_interlaced_frames_stay_and_are_named(tmp_path: Path) -> None:
    options = {"x264-params": "interlaced=1"}
    path = write_video(tmp_path / "v.mp4", 3, "libx264", "yuv420p", options=options, size_wh=(64, 64))
    told = f"{path}: frames are interlaced; each is used as stored, with the lines of both fields"
    assert notes_of(path) == (told,)
