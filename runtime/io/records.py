"""The file results.jsonl: a line per frame, appended with one write and fsynced. It is repaired after a crash.

Only one run writes to it at a time.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError
from maskrt.runtime.files import cannot_write, sync_folder
from maskrt.runtime.types import Stages

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two runs apart there
    fcntl = None  # type: ignore[assignment]

RESULTS = "results.jsonl"
LINE_BYTES = 4096  # read at a time; most lines are shorter


class RunSettings(msgspec.Struct, frozen=True):
    """The settings that, besides the frame, decide the outputs.

    bundle_sha256: of bundle.json, which holds those of the models. classes: the bundle's class names. options: those
    that override the bundle's.
    """

    bundle_sha256: str
    classes: tuple[str, ...]
    options: dict[str, Any]


class Record(msgspec.Struct, frozen=True):
    """One line. files: path below the folder -> sha256. frame_sha256: of the decoded pixels, not of the file.

    stages: the windows that a two-stage segmenter looked at again, and at what size.
    """

    name: str = msgspec.field(name="source")
    index: int
    timestamp_us: int | None
    status: Literal["ok", "failed"]
    settings: RunSettings
    reason: str | None = None
    roi_xywh: tuple[int, int, int, int] | None = None
    frame_sha256: str | None = None
    files: dict[str, str] = {}  # msgspec copies the default
    segments: int | None = None
    timings_ms: dict[str, float] = {}
    stages: Stages | None = None


class Records:
    """The file results.jsonl, opened for appending; the last line of a frame's name holds.

    Of each name only the place of its line is kept: a run over weeks has millions of frames.
    """

    def __init__(self, path: Path) -> None:
        """Open, create or repair the file.

        Raises:
            InputError: a line is not one of ours, or another run has the file open.
            MaskrtError: it cannot be written.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            sync_folder(path.parent)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._places: dict[str, int] = {}
        try:
            self._lock()
            self._load()
        except BaseException:
            self.close()
            raise

    def append(self, record: Record) -> None:
        """Add a line; it is on disk on return.

        Raises:
            MaskrtError: the disk does not take it.
        """
        line = msgspec.json.encode(record) + b"\n"
        try:
            # One write: a crash leaves at most one torn line, at the end. A short one means a full disk.
            place = os.fstat(self._file).st_size
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, "the disk is full")
            os.fsync(self._file)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._places[record.name] = place

    def find(self, name: str) -> Record | None:
        """Return the last line of a name."""
        place = self._places.get(name)
        return None if place is None else self._read(place)

    def __iter__(self) -> Iterator[Record]:
        """Yield the last line of every name."""
        return map(self._read, self._places.values())

    def _read(self, place: int) -> Record:
        line = b""
        while not line.endswith(b"\n"):
            piece = os.pread(self._file, LINE_BYTES, place + len(line))
            end = piece.find(b"\n") + 1
            line += piece[:end] if end else piece
            if not piece:  # it ended in a newline when it was written
                raise InputError(f"{self._path} was changed by another program: choose another --out")
        return msgspec.json.decode(line, type=Record)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _lock(self) -> None:
        """Lock the file until it is closed, also by a crash.

        Another run would take our half-written files for leftovers.
        """
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another run is writing to {self._path.parent}: wait for its end, or choose another --out"
            ) from error
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def _load(self) -> None:
        place = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):  # torn by a crash: its frame is done again
                    os.ftruncate(self._file, place)
                    break
                try:
                    record = msgspec.json.decode(line, type=Record)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise InputError(
                        f"{self._path} line {number} is not a result of maskrt ({error}): choose another --out"
                    ) from error
                self._places[record.name] = place
                place += len(line)


def sha256_of_pixels(rgb: NDArray[np.uint8]) -> str:
    """Return the hex sha256 of an image's shape and values."""
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()
