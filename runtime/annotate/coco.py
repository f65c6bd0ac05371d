"""annotations.json, in COCO's form, with the clicks of every object."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from maskrt.runtime.errors import InputError
from maskrt.runtime.files import read_plain
from maskrt.runtime.rle import Rle, rle_area

MOST_BYTES, MOST_PIXELS = 1 << 30, 1 << 30  # of the file, and of a picture in it


class Info(msgspec.Struct, frozen=True):
    """The info of the file; given_up: objects that were dropped after so many clicks that they count as failures."""

    description: str = "annotated with maskrt"
    given_up: int = 0


class ImageEntry(msgspec.Struct, frozen=True):
    """A picture with objects.

    file_name: its path in the folder of pictures. mask_file: its label picture in masks/; mask_sha256: of that file,
    empty where an older version wrote it.
    """

    id: int
    file_name: str
    width: int
    height: int
    mask_file: str
    sha256: str
    mask_sha256: str = ""


class Annotation(msgspec.Struct, frozen=True):
    """An object.

    segmentation: run lengths down the columns; bbox: x, y, width, height in pixels; clicks: x, y, and 1 on the object
    or 0 beside it, in their order; box: x0, y0, x1, y1 of a box prompt.
    """

    id: int
    image_id: int
    category_id: int
    segmentation: Rle
    bbox: tuple[int, int, int, int]
    area: int
    clicks: tuple[tuple[int, int, int], ...]
    box: tuple[int, int, int, int] | None
    iscrowd: int = 0


class Category(msgspec.Struct, frozen=True):
    """A class."""

    id: int
    name: str


class Coco(msgspec.Struct, frozen=True):
    """The whole file."""

    info: Info = Info()
    images: tuple[ImageEntry, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    categories: tuple[Category, ...] = ()


def read_coco(path: Path) -> Coco:
    """Read and check a file that `maskrt annotate` wrote.

    Raises:
        InputError: the file cannot be read, is no such file, or contradicts itself.
    """
    fix = "restore it from a copy, or choose another --out"
    data = read_plain(path, MOST_BYTES)
    try:
        coco = msgspec.json.decode(data, type=Coco)
        _check(coco)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged or not from maskrt annotate ({error}): {fix}") from error
    return coco


def check_classes(names: Sequence[str]) -> None:
    """Check that every class name can also name a decoder and a file.

    Raises:
        InputError: there is no name; or one is empty, too long, "base", or has characters that a file name cannot have.
    """
    if not names:
        raise InputError("--classes is empty: name at least one class, for example --classes object")
    for name in names:
        if name == "base":
            raise InputError("the class base: the bundle's own decoder has this name: choose another name")
        odd = not name.isprintable() or any(letter in '/\\:*?"<>|' for letter in name) or name.startswith(".")
        if not name.strip() or odd or len(name) > 60:
            raise InputError(f"the class {name!r} cannot name a file: use at most 60 letters, digits, - and _")


def _check(coco: Coco) -> None:
    images = _by_id(coco.images, "images")
    categories = _by_id(coco.categories, "categories")
    _by_id(coco.annotations, "annotations")
    if coco.categories:
        check_classes([category.name for category in coco.categories])
    for field in ("file_name", "mask_file"):
        if len({getattr(image, field) for image in coco.images}) < len(coco.images):
            raise ValueError(f"two images have one {field}")
    for image in coco.images:
        # Label pictures are written and removed under this name, so it must not lead out of masks/.
        if Path(image.mask_file).name != image.mask_file or not image.mask_file.endswith(".png"):
            raise ValueError(f"mask_file {image.mask_file!r} is not the name of a PNG file")
        if min(image.width, image.height) < 1 or image.width * image.height > MOST_PIXELS:
            raise ValueError(f"image {image.id} has the size {image.width} x {image.height}")
    for found in coco.annotations:
        if found.image_id not in images or found.category_id not in categories:
            raise ValueError(f"annotation {found.id} has an image or a category that does not exist")
        image = images[found.image_id]
        if found.segmentation["size"] != [image.height, image.width]:
            raise ValueError(f"annotation {found.id} does not have its image's size")
        counts = found.segmentation["counts"]
        if min(counts, default=0) < 0 or sum(counts) != image.height * image.width:
            raise ValueError(f"annotation {found.id}: its runs do not add up to its image's size")
        if rle_area(found.segmentation) != found.area:
            raise ValueError(f"annotation {found.id} has another area than it says")


def _by_id(entries: tuple[Any, ...], what: str) -> dict[int, Any]:
    found = {entry.id: entry for entry in entries}
    if len(found) < len(entries):
        raise ValueError(f"two {what} have one id")
    return found
