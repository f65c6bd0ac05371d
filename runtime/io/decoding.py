"""Decoding of a picture's bytes through Pillow, with everything refused that would be decoded to something else."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from maskrt.runtime.errors import InputError
from maskrt.runtime.io.libtiff import listened
from maskrt.runtime.io.structure import Damaged, check_structure

MAX_PIXELS = 50_000_000
# Only what cameras and annotation tools write: every decoder is a risk.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
# TIFF's numbers of what is needed here. Source: TIFF 6.0, section 8 and 19.
SUBFILE, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 254, 258, 262, 339
THUMBNAIL_OR_MASK = 1 | 4
WHITE_IS_ZERO = 0
_pillow = threading.Lock()


def max_bytes(max_pixels: int) -> int:
    """Return the size of the largest file that a picture of so many pixels can need: 8 bytes a pixel and its header."""
    return 8 * max_pixels + (16 << 20)


@contextmanager
def decoded(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open the decoded, upright picture, and close it at the end of the block.

    Raises:
        InputError: see maskrt.runtime.io.images.read_image.
    """
    if not data:
        raise InputError(f"{name} is an empty file: send or copy it again")
    try:
        check_structure(data)
        with _opened(data) as image:
            check_size(name, image.size, max_pixels)
            _check_pages(name, image)
            if image.format == "PNG":
                image.verify()  # load() skips the checksums of pixel data, so that a flipped bit would pass unseen
        with _opened(data) as image:
            _load(image)
            check_size(name, image.size, max_pixels)
            yield image
    except InputError:
        raise
    except Damaged as error:
        raise InputError(f"{name} cannot be decoded ({error}): copy or export it again") from error
    except UnidentifiedImageError as error:
        raise InputError(_unidentified(data, name)) from error
    except MemoryError as error:
        raise InputError(f"{name} does not fit into memory: lower --max-megapixels") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ... on damaged bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name} cannot be decoded ({reason}): copy or export it again") from error


def _load(image: Image.Image) -> None:
    """Decode the pixels, upright; raises Damaged where libtiff has warned of them."""
    if image.format != "TIFF":
        # In place: exif_transpose otherwise copies the picture even where there is nothing to turn.
        ImageOps.exif_transpose(image, in_place=True)
        return
    said: list[str] = []
    try:
        with listened() as said:
            ImageOps.exif_transpose(image, in_place=True)
    finally:
        if said:
            raise Damaged(said[0])


def exact_grey(image: Image.Image, name: str) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], int] | None:
    """Return a grey picture's values [H, W] and the one that stands for white, or None for a picture in colour.

    Raises:
        InputError: its values have no scale: floats, signed or 32-bit numbers.
    """
    _check_numbers(image, name)
    if image.mode == "L":
        return np.array(image, dtype=np.uint8), 255
    if not image.mode.startswith("I"):
        return None
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise _no_scale(name, "32-bit numbers", values)
    tags: Any = getattr(image, "tag_v2", {})
    full = 4095 if tags.get(BITS, (16,))[0] == 12 else 65535
    values = values.astype(np.uint16)
    # Pillow turns 8 bits over where white is zero, and 16 bits not.
    return (full - values if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else values), full


def _check_numbers(image: Image.Image, name: str) -> None:
    """Refuse numbers of which nothing says what is black and what is white."""
    tags: Any = getattr(image, "tag_v2", {})
    bits, form = tags.get(BITS, (8,)), tags.get(SAMPLE_FORMAT, (1,))
    if image.mode == "F" or 3 in form:
        raise _no_scale(name, "floats", np.asarray(image))
    if 2 in form:
        raise _no_scale(name, "signed numbers", np.asarray(image))
    if max(bits) > 16 or (image.mode == "I" and image.format not in ("PPM", "PNG")):
        raise _no_scale(name, "32-bit numbers", np.asarray(image))


def _no_scale(name: str, what: str, values: NDArray[Any]) -> InputError:
    return InputError(
        f"{name} holds {what}, from {values.min():g} to {values.max():g}, and nothing in it says which is white: "
        "convert it to 8 or 16 bits"
    )


def _opened(data: bytes) -> Image.Image:
    # Image.open reads the header only. Pillow's own limit is a process-wide number that warns at 89 and refuses at
    # 179 megapixels whatever the caller asked for; ours is checked right after. Its warnings are of metadata that is
    # damaged, which steers nothing but the rotation, and would reach the terminal.
    with _pillow, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def check_size(name: str, size_wh: tuple[int, int], max_pixels: int) -> None:
    """Refuse a picture or a video of no pixels, or of too many.

    Raises:
        InputError: it says which, and how to raise the limit.
    """
    width, height = size_wh
    if width < 1 or height < 1:
        raise InputError(f"{name} is {width} x {height}: it has no pixels")
    if width * height > max_pixels:
        needed = -(-width * height // 1_000_000)
        raise InputError(
            f"{name} is {width} x {height}, over the limit of {max_pixels / 1e6:g} megapixels: "
            f"if you trust it, use --max-megapixels {needed}"
        )


def _check_pages(name: str, image: Image.Image) -> None:
    """Refuse a file of several pictures; a telephone's JPEG may carry a second one for itself, a TIFF a thumbnail."""
    if image.format in ("JPEG", "MPO"):
        return
    pages = getattr(image, "n_frames", 1)
    if image.format == "TIFF" and pages > 1:
        pages = sum(not _is_thumbnail(image, page) for page in range(pages))
        image.seek(0)
    if pages > 1:
        raise InputError(
            f"{name} holds {pages} pictures (pages, or frames of an animation): write each into a file of its own"
        )


def _is_thumbnail(image: Any, page: int) -> bool:
    image.seek(page)
    return bool(page and image.tag_v2.get(SUBFILE, 0) & THUMBNAIL_OR_MASK)


def _unidentified(data: bytes, name: str) -> str:
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return (
            f"{name} is a TIFF of a kind that maskrt does not read: export it as a plain one with 8 or 16 bits a sample"
        )
    return f"{name} is not an image that maskrt reads: {', '.join(FORMATS)}"
