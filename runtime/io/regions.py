"""Reading of regions of interest from files."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from maskrt.runtime.errors import InputError
from maskrt.runtime.files import read_plain
from maskrt.runtime.strict_json import strict_json
from maskrt.runtime.types import Roi

MAX_BYTES = 64 << 20  # of a region's file; beside the region it may describe every object of a picture
RoiOf = Callable[[str], Roi | None]


class _RoiFile(msgspec.Struct):
    """The part of DIR/STEM.json that matters here; `maskrt scenes` writes more beside it."""

    roi_xywh: Roi


def roi_reader(folder: Path) -> RoiOf:
    """Return a function from a frame's name to `roi_xywh` in FOLDER/NAME.json.

    Raises:
        InputError: no such folder; the function raises it for a missing or unreadable file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it should hold a STEM.json with roi_xywh per image")

    def read(name: str) -> Roi | None:
        file = folder / f"{name}.json"
        try:
            data = read_plain(file, MAX_BYTES)
        except InputError as error:
            raise InputError(f"{error}; --roi-from needs one per image") from error
        try:
            return msgspec.convert(strict_json(data), type=_RoiFile).roi_xywh
        except ValueError as error:
            raise InputError(f'{file}: {error}; expected {{"roi_xywh": [X, Y, WIDTH, HEIGHT]}}') from error

    return read
