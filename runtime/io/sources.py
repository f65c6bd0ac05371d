"""Sources of frames: one image, a folder of images and videos, a glob, or a video file."""

import glob
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.errors import InputError
from maskrt.runtime.io.decoding import MAX_PIXELS
from maskrt.runtime.io.images import SUFFIXES, read_image
from maskrt.runtime.text import printable
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


class FileSource(Closeable):
    """A source of picture and video files, read one at a time in order; indexes count through all of them."""

    def __init__(
        self,
        files: Sequence[Path | str],
        max_pixels: int = MAX_PIXELS,
        notes: tuple[str, ...] = (),
        track: str | None = None,
    ) -> None:
        """Check the files' names.

        Args:
            notes: what there is to say of the files as a whole; what the videos say is added when they were read.
            track: see open_source.

        Raises:
            InputError: two files would write the same outputs.
        """
        _check_names(files)
        self._files = tuple(map(str, files))
        self._max_pixels = max_pixels
        self._track = track
        self.notes = notes

    @property
    def length(self) -> int | None:
        """The number of frames; None where a video is among the files."""
        return None if any(map(_is_video, self._files)) else len(self._files)

    def __iter__(self) -> Iterator[Frame | BadFrame]:
        index = 0
        for file in self._files:
            for frame in self._frames(Path(file)):
                yield replace(frame, index=index)
                index += 1

    def _frames(self, file: Path) -> Iterator[Frame | BadFrame]:
        try:
            check_name(file.stem, file)
            if not _is_video(str(file)):
                yield Frame(read_image(file, self._max_pixels), 0, file.stem)
                return
            with _open_video(str(file), self._max_pixels, self._track) as video:
                yield from video
                self.notes += tuple(f"{file}: {note}" if str(file) not in note else note for note in video.notes)
        except InputError as error:
            yield BadFrame(0, printable(file.stem), str(error))

    def close(self) -> None:
        """Do nothing: no file is open between two frames that are asked for."""


def open_source(spec: str, max_pixels: int = MAX_PIXELS, track: str | None = None) -> Source:
    """Open what a user names.

    Args:
        spec: an image; a folder, whose images and videos are taken in natural order (2 before 10), without hidden ones
            and subfolders; a glob such as "ward/*/*.png"; a video file; or what another row of SOURCES takes.
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


def _open_files(spec: str, max_pixels: int, track: str | None) -> Source:
    found = find_files(spec, (*SUFFIXES, *VIDEO_SUFFIXES))
    if track is not None and not any(map(_is_video, found.files)):
        raise InputError(f"--track {track} chooses a track of a video, and {spec} is none: leave --track out")
    return FileSource(found.files, max_pixels, found.notes, track)


# Asked in this order; the last one takes whatever is left, and says what a source may be.
SOURCES: dict[str, SourceKind] = {
    "video": SourceKind(_is_video, _open_video),
    "files": SourceKind(lambda spec: True, _open_files),
}


@dataclass(frozen=True)
class Found:
    """The files of a source in their order, and a sentence for each that was passed over."""

    files: list[str]
    notes: tuple[str, ...] = ()


def find_files(spec: str, suffixes: tuple[str, ...] = SUFFIXES) -> Found:
    """Find the files of an image, a folder or a glob, as open_source takes them.

    A file that is reached twice, through links, is taken once. What a folder holds beside, except hidden files, is
    noted; a glob names what it means, so that only files of its pattern are.

    Raises:
        InputError: nothing is there.
    """
    path = Path(spec)
    try:
        if path.is_dir():
            return _chosen((entry.path for entry in os.scandir(path)), f"folder {spec}", suffixes)
        if path.is_file():
            return Found([spec])
        if glob.has_magic(spec):
            return _chosen(glob.iglob(spec, recursive=True), f"pattern {spec}", suffixes)
    except InputError:
        raise
    except ValueError as error:  # a zero byte
        raise InputError(f"{spec!r} cannot be the name of a file: {error}") from error
    except OSError as error:
        raise InputError(f"{spec} cannot be listed: {error.strerror}: check its permissions") from error
    if path.exists():
        raise InputError(f"{spec} is not a plain file: give a file, a folder or a 'glob*', not a pipe or a device")
    raise InputError(f"{spec}: no such file or folder; a source is an image, a folder, a 'glob*' in quotes, or a video")


def natural_key(name: str) -> str:
    """Return a sort key by which frame_2 comes before frame_10."""
    # A number is written behind the count of its digits; a zero byte, which no name has, puts it before all letters.
    return re.sub(r"\d+", lambda found: f"\0{chr(len(str(int(found[0]))))}{int(found[0])}", name.casefold())


def _chosen(candidates: Iterable[str], where: str, suffixes: tuple[str, ...]) -> Found:
    files, notes, taken = list[str](), list[str](), dict[tuple[int, int] | None, str]()
    # Texts and not paths, which take several times the memory: a folder may hold 100,000 files.
    seen = sorted(candidates, key=lambda file: (natural_key(os.path.basename(file)), file))
    targets = {_identity(file) for file in seen if os.path.islink(file)}
    for file in seen:
        name = os.path.basename(file)
        if name.startswith("."):
            continue
        reason = _why_not(file, suffixes)
        if reason is None and (_identity(file) in targets or os.stat(file).st_nlink > 1):
            other = taken.setdefault(_identity(file), file)
            reason = None if other is file else f"it is the same file as {os.path.basename(other)}"
        if reason is None:
            files.append(file)
        elif reason:
            notes.append(f"passed over: {name}: {reason}")
    if not files:
        looked = f"looked for *{', *'.join(suffixes)} (subfolders are not searched)"
        raise InputError(f"{where} holds no image or video; {looked}{f'; {notes[0]}' if notes else ''}")
    return Found(files, tuple(notes))


def _why_not(file: str, suffixes: tuple[str, ...]) -> str | None:
    """Return why a file is passed over; None where it is taken, and nothing to say of a folder."""
    if os.path.isdir(file):
        return ""
    if os.path.splitext(file)[1].lower() not in suffixes:
        return "its ending is none that a folder is searched for; name the file itself if it is a picture"
    if not os.path.exists(file):
        return "it is a link to a file that is not there"
    return None if os.path.isfile(file) else "it is not a plain file"


def _identity(file: str) -> tuple[int, int] | None:
    """Return what two names of one file have in common; None where there is no file."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_name(name: str, file: Path) -> None:
    """Refuse a file name by which no result can be written.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{str(file)!r}: the name is not valid UTF-8: rename the file") from error


def _check_names(files: Sequence[Path | str]) -> None:
    """Refuse names that would overwrite each other's outputs, before work starts."""
    seen = set[int]()  # hashes and not names: there may be 100,000
    for file in files:
        stem = hash(_output(file))
        if stem in seen:
            other = next(one for one in files if _output(one) == _output(file))
            if other is not file:
                raise _clash(str(other), str(file), Path(file).stem)
        seen.add(stem)
    for video in filter(lambda file: _is_video(str(file)), files):
        frame = re.compile(re.escape(_output(video)) + r"_\d{6,}")
        for file in files:
            if frame.fullmatch(_output(file)):
                raise _clash(str(file), f"a frame of {video}", Path(file).stem)


def _output(file: Path | str) -> str:
    """Return the name of a file's results, equal where a disk takes them for one.

    Casefold: on many disks A.png and a.png are one file; NFC: on some, so are two spellings of one letter.
    """
    return unicodedata.normalize("NFC", os.path.splitext(os.path.basename(file))[0]).casefold()


def _clash(one: str, other: str, name: str) -> InputError:
    return InputError(f"{one} and {other} would both write outputs named {name}: rename one of them")
