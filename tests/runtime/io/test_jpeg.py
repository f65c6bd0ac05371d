"""Damage of JPEG files that decoders fill in."""

import io
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrt.runtime.errors import InputError
from maskrt.runtime.io.images import decode_image
from maskrt.runtime.io.structure import Damaged, check_structure


def drawn(rng: np.random.Generator) -> Image.Image:
    """A smooth picture with noise, so that all kinds of codes occur."""
    ramp = np.add.outer(np.arange(96), np.arange(128)) % 256
    noise = rng.normal(0, 12, (96, 128, 3))
    return Image.fromarray(np.clip(ramp[..., None] + noise, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


OPTIONS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True},
    "444": {"subsampling": 0},
    "restarts": {"restart_marker_blocks": 4},
    "progressive restarts": {"restart_marker_rows": 1, "progressive": True},
}


@pytest.fixture(params=[*OPTIONS, "grey", "cmyk"])
def whole(request: pytest.FixtureRequest, rng: np.random.Generator) -> bytes:
    if request.param in OPTIONS:
        return jpeg(drawn(rng), **OPTIONS[request.param])
    return jpeg(drawn(rng).convert("L" if request.param == "grey" else "CMYK"))


def refused(data: bytes) -> bool:
    try:
        check_structure(data)
    except Damaged:
        return True
    return False


def test_whole_files_are_taken_and_what_follows_the_end_is_ignored(whole: bytes) -> None:
    for data in (whole, whole + b"\0junk\xff\xd8\xff", whole.replace(b"\xff\xda", b"\xff\xff\xff\xda", 1)):
        assert not refused(data)
        assert decode_image(data, "a").shape == (96, 128, 3)


def test_flat_pictures_are_taken() -> None:
    for options in ({}, {"optimize": True}, {"progressive": True}):
        assert not refused(jpeg(Image.new("RGB", (640, 480)), **options))
        assert not refused(jpeg(Image.new("L", (640, 480), 255), **options))


def test_missing_ends_cuts_and_zeros_are_refused(whole: bytes, rng: np.random.Generator) -> None:
    start = whole.find(b"\xff\xda") + 14
    assert refused(whole[:-2])
    assert refused(whole[: int(0.6 * len(whole))] + bytes(int(0.4 * len(whole))))
    for at in rng.integers(start, len(whole) - 600, 10).tolist():
        assert refused(whole[:at])


def test_the_reason_is_said_in_one_line(rng: np.random.Generator) -> None:
    data = jpeg(drawn(rng))
    with pytest.raises(
        InputError, match=r"ward\.jpg cannot be decoded \(its data end before .* copy or export it again"
    ):
        decode_image(data[:-800] + data[-2:], "ward.jpg")


def test_endless_scans_and_comments_are_refused_before_decoding(rng: np.random.Generator) -> None:
    data = jpeg(drawn(rng))
    at = data.rfind(b"\xff\xda")
    with pytest.raises(Damaged, match="more than 100 scans"):
        check_structure(data[:-2] + data[at:-2] * 1500 + data[-2:])
    progressive = jpeg(drawn(rng), progressive=True)
    at = progressive.rfind(b"\xff\xda")
    with pytest.raises(Damaged, match="out of order"):
        check_structure(progressive[:-2] + progressive[at:-2] + progressive[-2:])
    comment = b"\xff\xfe\xff\xff" + bytes(65533)
    with pytest.raises(Damaged, match="16 MB beside its pixels"):
        check_structure(data[:2] + comment * 400 + data[2:])


@pytest.mark.skipif(shutil.which("djpeg") is None, reason="libjpeg's djpeg is not installed")
def test_every_file_that_libjpeg_warns_of_is_refused(whole: bytes, rng: np.random.Generator) -> None:
    start, warned = whole.find(b"\xff\xda") + 10, 0
    for trial in range(40):
        data = bytearray(whole)
        at = int(rng.integers(start, len(whole) - 3))
        if trial % 4 == 0:
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        elif trial % 4 == 1:
            del data[at : at + 200]
        elif trial % 4 == 2:
            data[at] ^= 1 << int(rng.integers(8))
        else:
            data[at:at] = rng.bytes(3)
        done = subprocess.run(["djpeg", "-outfile", "/dev/null"], input=bytes(data), capture_output=True)
        if done.stderr:
            warned += 1
            assert refused(bytes(data)), done.stderr
    assert warned >= 10
