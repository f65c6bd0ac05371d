"""Reading of mask files: a truth, a rough mask, or a picture of class numbers.

A mask is grey. It may be stored as a colour picture of equal channels, with an alpha channel that is opaque
everywhere, or with a palette whose first colour is black and whose others in use are white.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.runtime.errors import InputError
from maskrt.runtime.files import read_plain
from maskrt.runtime.io.decoding import MAX_PIXELS, PHOTOMETRIC, WHITE_IS_ZERO, decoded, exact_grey, max_bytes

Grey = NDArray[np.uint8] | NDArray[np.uint16]
SHOWN = 6  # values that an error names


def read_truth(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Read a mask file as bool [H, W]: true where its grey value exceeds half of white.

    Raises:
        InputError: see maskrt.runtime.io.images.read_image; also when it is no mask: in colour, transparent, darker
            than half of white everywhere and yet not black, or with class numbers beside 0 and white.
    """
    values, full = _mask(Path(path), max_pixels, "file has 0 and {}")
    numbers: NDArray[Any] = np.unique(values)
    between = numbers[(numbers > 0) & (numbers < full)]
    if between.size and between.max() < full // 4 and len(between) <= 32:  # the edges of a mask have all greys
        raise InputError(
            f"{path} has the values {_listed(numbers)}: a mask has 0 and {full}; class numbers are no mask"
        )
    return np.asarray(values > full // 2, dtype=np.bool_)


def read_rough(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Read a mask file as float32 [H, W] in [0, 1]: its grey value / white.

    Raises:
        InputError: see read_truth; class numbers beside white are not looked for.
    """
    values, full = _mask(Path(path), max_pixels, "has {}; use --labels for class numbers")
    # 16 bits are rounded to 8, as those of a picture are.
    eight = values if full == 255 else ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
    return eight.astype(np.float32) / np.float32(255)


def read_labels(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read a picture of class numbers, uint8 or uint16 [H, W]. With a palette, its numbers are the classes.

    Raises:
        InputError: see maskrt.runtime.io.images.read_image; also for a picture in colour, and for numbers that count
            from white.
    """
    with decoded(read_plain(Path(path), max_bytes(max_pixels)), str(path), max_pixels) as image:
        tags: Any = getattr(image, "tag_v2", {})
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            raise InputError(f"{path} counts from white: save it as a grey TIFF in which black is 0, or as PNG")
        if image.mode.startswith("I"):
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 65535:
                raise InputError(f"{path} has values from {values.min()} to {values.max()}: a label map has 0 to 65535")
            return values.astype(np.uint16)
        if image.mode not in ("1", "L", "P"):
            raise InputError(f"{path} is a picture in colour ({image.mode}): a label map is grey, or has a palette")
        return np.array(image, dtype=np.uint8)


def _mask(path: Path, max_pixels: int, needed: str) -> tuple[Grey, int]:
    """Return a mask's grey values [H, W] and the one that stands for white, {} in `needed`, the error's end."""
    with decoded(read_plain(path, max_bytes(max_pixels)), str(path), max_pixels) as image:
        found = exact_grey(image, str(path)) or (_from_colours(image, path), 255)
    values, full = found
    if 0 < int(values.max()) <= full // 2:
        raise InputError(f"{path}: the brightest value is {int(values.max())}: a mask {needed.format(full)}")
    return found


def _from_colours(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode not in ("P", "PA", "LA", "La", "RGB", "RGBA", "RGBa"):
        raise InputError(f"{path} is a picture of mode {image.mode}: save the mask as grey with 0 and 255")
    rgba = np.asarray(image.convert("RGBA"))
    alpha, rgb = rgba[..., 3], rgba[..., :3]
    if alpha.min() < 255:
        raise InputError(
            f"{path} is transparent in places (alpha from {alpha.min()} to {alpha.max()}): save the mask as grey with "
            "0 and 255, without alpha"
        )
    if (rgb != rgb[..., :1]).any():
        colours = np.unique(rgb.reshape(-1, 3)[:: max(1, rgb[..., 0].size // 100_000)], axis=0)[:SHOWN]
        shown = ", ".join(str(tuple(int(part) for part in colour)) for colour in colours)
        raise InputError(f"{path} has colours, such as {shown}: save the mask as grey with 0 and 255")
    grey = np.ascontiguousarray(rgb[..., 0])
    if image.mode == "P" and ((np.asarray(image) > 0) != (grey > 127)).any():
        raise InputError(
            f"{path} has a palette whose colours and numbers disagree about what is black: save the mask as grey with "
            "0 and 255"
        )
    return grey


def _listed(numbers: NDArray[Any]) -> str:
    shown = ", ".join(str(int(number)) for number in numbers[:SHOWN])
    return shown if len(numbers) <= SHOWN else f"{shown}, ... {int(numbers[-1])}"
