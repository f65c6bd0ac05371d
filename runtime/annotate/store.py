"""The folder --out, which keeps the objects and decoders.

OUT/annotations.json            every object in COCO form, see `coco`
OUT/masks/STEM.png              label picture, 8 or 16 bits: k where the picture's k-th object is, later ones on top
OUT/decoders/CLASS.safetensors  the decoder of a class, written by the session
"""

import hashlib
import itertools
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.annotate.coco import Annotation, Category, Coco, ImageEntry, read_coco
from maskrt.runtime.annotate.pictures import Opened
from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.files import PREFIX, SUFFIX, cannot_write, remove_leftovers, sha256_of, write_bytes, write_files
from maskrt.runtime.io.records import RESULTS
from maskrt.runtime.io.sinks import png_bytes
from maskrt.runtime.rle import Rle, encode_rle
from maskrt.runtime.types import Labels

ANNOTATIONS, MASKS, DECODERS = "annotations.json", "masks", "decoders"
MOST_OBJECTS = 65_535  # of a picture: its label picture has 16 bits
FAILED_CLICKS = 20  # the paper's FR20: an object that takes so many counts as a failure


class Store:
    """The objects of a folder; each change is on disk, whole, before this object shows it."""

    def __init__(self, out: Path, classes: Sequence[str]) -> None:
        """Open a new or empty folder, or go on with one of an earlier `maskrt annotate`.

        Afterwards, `made_again` has the names of label pictures that were not as annotations.json says, and `unknown`
        those of pictures in masks/ that it does not know, which stay as they are.

        Args:
            classes: names that are added to those of the folder.

        Raises:
            InputError: the folder holds something else, or its annotations are damaged.
            MaskrtError: the folder cannot be written to.
        """
        self.out = out
        self._file = out / ANNOTATIONS
        _check_folder(out)
        for folder in (out, out / MASKS, out / DECODERS):
            remove_leftovers(folder)
        self._stamp = self._stamp_now()
        coco = Coco() if self._stamp is None else read_coco(self._file)
        known = [category.name for category in coco.categories]
        added = [name for name in dict.fromkeys(classes) if name not in known]
        first = max((category.id for category in coco.categories), default=0) + 1
        categories = tuple(Category(first + at, name) for at, name in enumerate(added))
        self._coco = msgspec.structs.replace(coco, categories=coco.categories + categories)
        self._next_id = max((found.id for found in coco.annotations), default=0) + 1
        self.made_again = self._draw_again()
        listed = {image.mask_file for image in self._coco.images}
        self.unknown = tuple(sorted(file.name for file in (out / MASKS).glob("*.png") if file.name not in listed))
        if self._coco != coco:  # this also shows before the first click whether the folder can be written to
            self._write(self._coco, None)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of their numbers."""
        return tuple(category.name for category in self._coco.categories)

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """All objects."""
        return self._coco.annotations

    @property
    def annotated(self) -> frozenset[str]:
        """Names of the pictures that have objects."""
        return frozenset(image.file_name for image in self._coco.images)

    @property
    def failures(self) -> int:
        """Objects that were accepted or given up after FAILED_CLICKS clicks or more."""
        return self._coco.info.given_up + sum(len(found.clicks) >= FAILED_CLICKS for found in self.annotations)

    def class_of(self, found: Annotation) -> str:
        """Return the name of an object's class."""
        return next(category.name for category in self._coco.categories if category.id == found.category_id)

    def decoder_file(self, name: str) -> Path:
        """Return the file of a class's decoder."""
        return self.out / DECODERS / f"{name}.safetensors"

    def objects_of(self, name: str) -> tuple[Annotation, ...]:
        """Return a picture's objects in the order in which they were accepted."""
        image = self._entry(name)
        return () if image is None else tuple(found for found in self.annotations if found.image_id == image.id)

    def check(self, opened: Opened) -> None:
        """Check that a picture is the one on which its objects were drawn.

        Raises:
            InputError: it has changed since, or is another picture of the same name.
        """
        image = self._entry(opened.picture.name)
        if image is not None and image.sha256 != opened.sha256:
            raise InputError(
                f"{opened.picture.path} is not the picture that {self._file} has under this name: "
                f"restore it, or choose another --out"
            )

    def add(
        self,
        opened: Opened,
        name: str,
        mask: NDArray[np.bool_],
        clicks: Sequence[tuple[int, int, int]],
        box: tuple[int, int, int, int] | None,
    ) -> Annotation:
        """Keep an object.

        Args:
            name: name of its class.
            mask: bool [H, W], not empty.
            clicks, box: see Annotation.

        Raises:
            MaskrtError: it cannot be written; nothing has changed.
        """
        coco = self._coco
        if len(self.objects_of(opened.picture.name)) >= MOST_OBJECTS:
            raise InputError(f"{opened.picture.name} has {MOST_OBJECTS} objects: a label picture can hold no more")
        image = self._entry(opened.picture.name) or self._new_entry(opened)
        category = next(category.id for category in coco.categories if category.name == name)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        bbox = (x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)
        found = Annotation(
            self._next_id, image.id, category, encode_rle(mask), bbox, int(mask.sum()), tuple(clicks), box
        )
        images = coco.images if image in coco.images else (*coco.images, image)
        self._write(msgspec.structs.replace(coco, images=images, annotations=(*coco.annotations, found)), image)
        self._next_id += 1
        return found

    def delete(self, annotation_id: int) -> None:
        """Remove an object; those accepted after it move up one number.

        Raises:
            InputError: there is no object of this id.
            MaskrtError: it cannot be written; nothing has changed.
        """
        coco = self._coco
        rest = tuple(found for found in coco.annotations if found.id != annotation_id)
        gone = next((found for found in coco.annotations if found.id == annotation_id), None)
        if gone is None:
            raise InputError(f"there is no object {annotation_id}: it may have been deleted already")
        image = next(image for image in coco.images if image.id == gone.image_id)
        left = any(found.image_id == image.id for found in rest)
        images = coco.images if left else tuple(other for other in coco.images if other.id != image.id)
        self._write(msgspec.structs.replace(coco, images=images, annotations=rest), image)

    def give_up(self) -> None:
        """Count an object that was dropped after FAILED_CLICKS clicks or more.

        Raises:
            MaskrtError: it cannot be written; nothing has changed.
        """
        info = msgspec.structs.replace(self._coco.info, given_up=self._coco.info.given_up + 1)
        self._write(msgspec.structs.replace(self._coco, info=info), None)

    def _write(self, coco: Coco, image: ImageEntry | None) -> None:
        """Write annotations.json and, if an image's objects have changed, its label picture.

        annotations.json is the truth and comes first: whatever is not as it says is drawn again on the next opening.
        """
        if self._stamp_now() != self._stamp:
            raise MaskrtError(f"{self._file} was changed by another program: start maskrt annotate again")
        rles = [found.segmentation for found in coco.annotations if image is not None and found.image_id == image.id]
        pictures = {}
        if image is not None and rles:
            png = png_bytes(label_picture(rles))
            entry = msgspec.structs.replace(image, mask_sha256=hashlib.sha256(png).hexdigest())
            images = tuple(entry if other.id == image.id else other for other in coco.images)
            coco = msgspec.structs.replace(coco, images=images)
            pictures[self.out / MASKS / image.mask_file] = png
        gone = None if image is None or rles else self.out / MASKS / image.mask_file
        try:
            with _set_aside(gone):
                write_files({self._file: msgspec.json.encode(coco) + b"\n", **pictures})
        except OSError as error:
            raise cannot_write(self._file, error) from error
        self._coco, self._stamp = coco, self._stamp_now()

    def _draw_again(self) -> tuple[str, ...]:
        """Draw the label pictures that are not as annotations.json says, and return their names.

        A process that is killed between writing the two leaves such a one. Pictures without objects are dropped.
        """
        with_objects = {found.image_id for found in self.annotations}
        images, again = [], []
        for image in (image for image in self._coco.images if image.id in with_objects):
            file = self.out / MASKS / image.mask_file
            if image.mask_sha256 == "" or image.mask_sha256 != _sha256_of(file):
                png = png_bytes(label_picture([found.segmentation for found in self.objects_of(image.file_name)]))
                image = msgspec.structs.replace(image, mask_sha256=hashlib.sha256(png).hexdigest())
                if image.mask_sha256 != _sha256_of(file):
                    again.append(image.mask_file)
                    write_bytes(file, png)
            images.append(image)
        self._coco = msgspec.structs.replace(self._coco, images=tuple(images))
        return tuple(again)

    def _entry(self, name: str) -> ImageEntry | None:
        return next((image for image in self._coco.images if image.file_name == name), None)

    def _new_entry(self, opened: Opened) -> ImageEntry:
        # Casefold: on many disks A.png and a.png are one file.
        taken = {name.casefold() for name in (*(image.mask_file for image in self._coco.images), *self.unknown)}
        endings = itertools.chain([".png"], (f"_{number}.png" for number in itertools.count(2)))
        names = (_fitting(opened.picture.path.stem, ending) for ending in endings)
        mask_file = next(name for name in names if name.casefold() not in taken)
        image_id = max((image.id for image in self._coco.images), default=0) + 1
        height, width = opened.size_hw
        return ImageEntry(image_id, opened.picture.name, width, height, mask_file, opened.sha256)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


@contextmanager
def _set_aside(file: Path | None) -> Iterator[None]:
    """Rename a file to what `remove_leftovers` removes, and remove it at the end of the `with` block.

    So the label picture of a deleted object never outlives it, whenever the process is killed; and an error inside the
    block brings it back.
    """
    if file is None or not file.exists():
        yield
        return
    aside = file.with_name(f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}")
    os.replace(file, aside)
    try:
        yield
    except BaseException:
        os.replace(aside, file)
        raise
    aside.unlink(missing_ok=True)


def _fitting(stem: str, ending: str) -> str:
    """Return a name of at most 255 bytes, which is what file systems take."""
    return stem.encode()[: 255 - len(ending)].decode(errors="ignore") + ending


def _sha256_of(file: Path) -> str:
    """Return the hex sha256 of a plain file; empty if there is none, or it cannot be read."""
    try:
        return sha256_of(file) if file.is_file() else ""
    except OSError:
        return ""


def label_picture(rles: Sequence[Rle]) -> Labels:
    """Draw k where the k-th mask is, counted from 1, later ones on top; uint8, or uint16 past 255 masks."""
    height, width = rles[0]["size"]
    owner = np.zeros(height * width, np.uint8 if len(rles) <= 255 else np.uint16)  # column order, as run lengths are
    for number, rle in enumerate(rles, 1):
        ends = np.cumsum(rle["counts"])
        for start, end in zip(ends[0::2], ends[1::2], strict=False):
            owner[start:end] = number
    return np.ascontiguousarray(owner.reshape(width, height).T)


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: choose a folder for --out")
    if (out / RESULTS).exists():
        raise InputError(f"{out} holds results of maskrt run, whose masks have the same names: choose another --out")
    if out.is_dir() and any(os.scandir(out)) and not (out / ANNOTATIONS).is_file():
        raise InputError(f"{out} is not empty and holds no {ANNOTATIONS}: choose a new or empty folder for --out")
