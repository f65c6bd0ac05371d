"""Finds the pictures to annotate; their names stay the same when others join them."""

import glob
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError
from maskrt.runtime.files import sha256_of
from maskrt.runtime.io.images import read_image
from maskrt.runtime.io.sources import VIDEO_SUFFIXES, check_name, find_files, natural_key


@dataclass(frozen=True)
class Picture:
    """A file, and its name: its path from the folder that the user names, with slashes."""

    path: Path
    name: str


@dataclass(frozen=True)
class Opened:
    """A picture in memory: uint8 [H, W, 3], and the sha256 of its file."""

    picture: Picture
    rgb: NDArray[np.uint8]
    sha256: str

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rgb.shape[0], self.rgb.shape[1]


def find_pictures(spec: str) -> list[Picture]:
    """Find the pictures of a folder, a file or a glob, folder by folder in natural order.

    Args:
        spec: see open_source, without videos. Names are paths from the folder, from the file's folder, or from the part
            of the glob before its first wildcard.

    Raises:
        InputError: there is no picture, it is a video, or a name is not UTF-8.
    """
    path = Path(spec)
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(f"{spec} is a video: save the frames to annotate as images")
    root = path if path.is_dir() else path.parent if path.is_file() else _fixed_part(path)
    pictures = []
    for file in map(Path, find_files(spec).files):
        name = file.relative_to(root).as_posix()
        check_name(name, file)
        pictures.append(Picture(file, name))
    return sorted(pictures, key=lambda picture: ([natural_key(part) for part in picture.name.split("/")], picture.name))


def open_picture(picture: Picture, max_pixels: int) -> Opened:
    """Read a picture.

    Raises:
        InputError: see read_image.
    """
    rgb = read_image(picture.path, max_pixels)
    try:
        return Opened(picture, rgb, sha256_of(picture.path))
    except OSError as error:
        raise InputError(f"{picture.path}: {error.strerror or error}: copy it again") from error


def _fixed_part(pattern: Path) -> Path:
    parts = pattern.parent.parts
    wild = [at for at, part in enumerate(parts) if glob.has_magic(part)]
    return Path(*parts[: wild[0]]) if wild else pattern.parent
