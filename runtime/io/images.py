"""Reading of image files into arrays, through Pillow.

EXIF rotation is applied. Grey is repeated into three channels. 16-bit grey is divided by 257 (65535 becomes 255) and
rounded; nothing is clipped. Pillow keeps the high bytes of 16-bit colour PNG. Alpha is dropped and the stored colours
stay, as `convert("RGB")` does in the usual training code. Palette, 1-bit and CMYK become RGB. Only the first picture of
a file is read.
"""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from maskrt.runtime.errors import InputError

MAX_PIXELS = 50_000_000
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
# Only what cameras and annotation tools write: every decoder is a risk.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
_pillow_limit = threading.Lock()


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a picture as uint8 RGB [H, W, 3].

    Args:
        path: a PNG, JPEG, BMP, TIFF, WebP or PPM file.
        max_pixels: a larger picture is refused from its header, before any pixel is decoded.

    Raises:
        InputError: the file is missing, no picture, damaged, empty, or too large.
    """
    with _decoded(Path(path), max_pixels) as image:
        return _rgb(str(path), image)


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a picture from a file's bytes, as read_image does; errors call it by `name`.

    Raises:
        InputError: see read_image; also when there are no bytes.
    """
    if not data:
        raise InputError(f"{name} is empty: send a picture")
    with _upright(lambda: io.BytesIO(data), name, max_pixels) as image:
        return _rgb(name, image)


def read_truth(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Read a mask file as bool [H, W]: true where its grey value exceeds 127.

    Raises:
        InputError: see read_image; also when the brightest pixel is grey 1 to 127, since a file of class numbers would
            otherwise read as an empty mask.
    """
    grey = _grey(Path(path), max_pixels)
    if 0 < int(grey.max()) <= 127:
        raise InputError(f"{path}: the brightest value is {int(grey.max())}: a mask file has 0 and 255")
    return np.asarray(grey > 127, dtype=np.bool_)


def read_rough(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Read a mask file as float32 [H, W] in [0, 1]: its grey value / 255.

    Raises:
        InputError: see read_truth.
    """
    grey = _grey(Path(path), max_pixels)
    if 0 < int(grey.max()) <= 127:
        raise InputError(
            f"{path}: the brightest value is {int(grey.max())}: a mask has 255; use --labels for class numbers"
        )
    return grey.astype(np.float32) / np.float32(255)


def read_labels(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read a picture of class numbers, uint8 or uint16 [H, W]. With a palette, its numbers are the classes.

    Raises:
        InputError: see read_image; also for a picture in colour.
    """
    with _decoded(Path(path), max_pixels) as image:
        if image.mode.startswith("I"):
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 65535:
                raise InputError(f"{path} has 32-bit values: a label map has 8 or 16 bits")
            return values.astype(np.uint16)
        if image.mode not in ("1", "L", "P"):
            raise InputError(f"{path} is a picture in colour ({image.mode}): a label map is grey, or has a palette")
        return np.array(image, dtype=np.uint8)


def _grey(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    with _decoded(path, max_pixels) as image:
        return _eight_bits(str(path), image) if image.mode.startswith("I") else np.asarray(image.convert("L"))


@contextmanager
def _decoded(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open the decoded, upright picture, and close it at the end of the block."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is an empty file: copy it again")
    with _upright(lambda: path, str(path), max_pixels) as image:
        yield image


@contextmanager
def _upright(file: Callable[[], Path | io.BytesIO], name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Do what _decoded does for whatever `file` returns; it is called each time that the picture is read."""
    try:
        with _opened(file()) as image:
            _check_size(name, image.size, max_pixels)
            if image.format == "PNG":
                image.verify()  # load() skips the checksums of pixel data, so that a flipped bit would pass unseen
        with _opened(file()) as image:
            # In place: exif_transpose otherwise copies the picture even where there is nothing to turn.
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
            _check_size(name, image.size, max_pixels)
            yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image that maskrt reads: {', '.join(FORMATS)}") from error
    except MemoryError as error:
        raise InputError(f"{name} does not fit into memory: lower --max-megapixels") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ... on damaged bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name} cannot be decoded ({reason}): copy or export it again") from error


def _opened(file: Path | io.BytesIO) -> Image.Image:
    # Image.open reads the header only. Pillow's own limit is a process-wide number that warns at 89 and refuses at
    # 179 megapixels whatever the caller asked for; ours is checked right after.
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(name: str, size_wh: tuple[int, int], max_pixels: int) -> None:
    width, height = size_wh
    if width < 1 or height < 1:
        raise InputError(f"{name} is {width} x {height}: it has no pixels")
    if width * height > max_pixels:
        needed = -(-width * height // 1_000_000)
        raise InputError(
            f"{name} is {width} x {height}, over the limit of {max_pixels / 1e6:g} megapixels: "
            f"if you trust it, use --max-megapixels {needed}"
        )


def _rgb(name: str, image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return np.repeat(_eight_bits(name, image)[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _eight_bits(name: str, image: Image.Image) -> NDArray[np.uint8]:
    """Convert grey of 16 bits to uint8 [H, W]. Pillow holds it in mode I;16 or, from PGM, as 32-bit I."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{name} has 32-bit values: convert it to 8 or 16 bits")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
