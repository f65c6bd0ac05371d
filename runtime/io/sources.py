"""Sources of frames: one image, a folder, a glob, or a video file."""

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.errors import InputError
from maskrt.runtime.io.images import MAX_PIXELS, SUFFIXES, read_image
from maskrt.runtime.types import BadFrame, Frame

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".m4v", ".webm")


class Source(Protocol):
    """A source of frames in order, for use in a `with` block.

    Frame.name names the frame's outputs: the stem of an image file, or VIDEO_000123. length is None where the number
    of frames is not known beforehand. notes: what a user should know of the source as a whole, once it was read.
    """

    @property
    def length(self) -> int | None: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def __iter__(self) -> Iterator[Frame | BadFrame]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ImageSource(Closeable):
    """A source of image files, read one at a time."""

    notes: tuple[str, ...] = ()

    def __init__(self, files: Sequence[Path], max_pixels: int = MAX_PIXELS) -> None:
        _check_names(files)
        self._files = tuple(files)
        self._max_pixels = max_pixels

    @property
    def length(self) -> int | None:
        """The number of files."""
        return len(self._files)

    def __iter__(self) -> Iterator[Frame | BadFrame]:
        for index, file in enumerate(self._files):
            try:
                yield Frame(read_image(file, self._max_pixels), index, file.stem)
            except InputError as error:
                yield BadFrame(index, file.stem, str(error))

    def close(self) -> None:
        """Do nothing: no file is open between two images."""


def open_source(spec: str, max_pixels: int = MAX_PIXELS, track: str | None = None) -> Source:
    """Open what a user names.

    Args:
        spec: an image; a folder, whose image files are taken in natural order (2 before 10), without hidden ones and
            subfolders; a glob such as "ward/*/*.png"; a video file; or what another row of SOURCES takes.
        max_pixels: larger frames become BadFrames.
        track: number or title of a video's track; see VideoSource.

    Raises:
        InputError: nothing is there, two files would write the same outputs, or `track` is given and it is no video.
        MaskrtError: a video, and PyAV is not installed.
    """
    return next(kind for kind in SOURCES.values() if kind.takes(spec)).open(spec, max_pixels, track)


@dataclass(frozen=True)
class SourceKind:
    """One row of the table of sources.

    takes: whether a text that a user gave names such a source; open: opens it, and gets the most pixels of a frame
    and the track that was asked for.
    """

    takes: Callable[[str], bool]
    open: Callable[[str, int, str | None], Source]


def _is_video(spec: str) -> bool:
    path = Path(spec)
    # A pipe or a device is refused on opening, as what it is.
    return path.suffix.lower() in VIDEO_SUFFIXES and path.exists() and not path.is_dir()


def _open_video(spec: str, max_pixels: int, track: str | None) -> Source:
    from maskrt.runtime.io.video.source import VideoSource  # needs the extra `video`

    check_name(Path(spec).stem, Path(spec))
    return VideoSource(Path(spec), max_pixels, track)


def _open_images(spec: str, max_pixels: int, track: str | None) -> Source:
    if track is not None:
        raise InputError(f"--track {track} chooses a track of a video, and {spec} is none: leave --track out")
    return ImageSource(image_files(spec), max_pixels)


# Asked in this order; the last one takes whatever is left, and says what a source may be.
SOURCES: dict[str, SourceKind] = {
    "video": SourceKind(_is_video, _open_video),
    "images": SourceKind(lambda spec: True, _open_images),
}


def image_files(spec: str) -> list[Path]:
    """Return the files of an image, a folder or a glob, as open_source takes them.

    Raises:
        InputError: nothing is there.
    """
    path = Path(spec)
    if path.is_dir():
        return _images(path.iterdir(), f"folder {spec}")
    if path.is_file():
        return [path]
    if glob.has_magic(spec):
        return _images(map(Path, glob.glob(spec, recursive=True)), f"pattern {spec}")
    raise InputError(f"{spec}: no such file or folder; a source is an image, a folder, a 'glob*' in quotes, or a video")


def natural_key(name: str) -> list[str | int]:
    """Return a sort key by which frame_2 comes before frame_10."""
    # re.split with a group alternates text and digits, so that like is compared with like.
    return [int(part) if at % 2 else part.casefold() for at, part in enumerate(re.split(r"(\d+)", name))]


def _images(candidates: Iterator[Path], where: str) -> list[Path]:
    files = [
        file
        for file in candidates
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not files:
        raise InputError(f"{where} holds no image; looked for *{', *'.join(SUFFIXES)} (subfolders are not searched)")
    return sorted(files, key=lambda file: (natural_key(file.name), str(file)))


def check_name(name: str, file: Path) -> None:
    """Refuse a file name by which no result can be written.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{str(file)!r}: the name is not valid UTF-8: rename the file") from error


def _check_names(files: Sequence[Path]) -> None:
    """Refuse names that cannot be written to, or that would overwrite each other's outputs, before work starts."""
    seen: dict[str, Path] = {}
    for file in files:
        check_name(file.stem, file)
        # Casefold: on many disks A.png and a.png are one output file.
        other = seen.setdefault(file.stem.casefold(), file)
        if other is not file:
            raise InputError(f"{other} and {file} would both write outputs named {file.stem}: rename one of them")
