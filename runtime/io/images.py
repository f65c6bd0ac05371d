"""Reading of picture files into arrays.

EXIF rotation is applied. Grey is repeated into three channels. 16-bit grey is divided by 257 (65535 becomes 255) and
rounded, 12-bit grey by 4095 / 255; nothing is clipped. Pillow keeps the high bytes of 16-bit colour. Alpha is dropped
and the stored colours stay, as `convert("RGB")` does in the usual training code. Palette, 1-bit and CMYK become RGB.
A file of several pictures, of floats or of 32-bit numbers is refused: nothing in it says how it is meant.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.files import read_plain
from maskrt.runtime.io.decoding import MAX_PIXELS, decoded, exact_grey, max_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a picture as uint8 RGB [H, W, 3].

    Args:
        path: a PNG, JPEG, BMP, TIFF, WebP or PPM file.
        max_pixels: a larger picture is refused from its header, before any pixel is decoded.

    Raises:
        InputError: the file is missing, no picture, several, damaged, empty, or too large; or its values have no scale.
    """
    return decode_image(read_plain(Path(path), max_bytes(max_pixels)), str(path), max_pixels)


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a picture from a file's bytes, as read_image does; errors call it by `name`.

    Raises:
        InputError: see read_image.
    """
    with decoded(data, name, max_pixels) as image:
        grey = exact_grey(image, name)
        if grey is None:
            return np.array(image.convert("RGB"), dtype=np.uint8)
        values, full = grey
        if full != 255:
            values = ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
        return np.repeat(values[:, :, None], 3, axis=2)
