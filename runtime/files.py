"""Writing of files, which are whole or absent whatever happens meanwhile; reading of plain ones; and their sha256."""

import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from maskrt.runtime.errors import InputError, MaskrtError

PREFIX, SUFFIX = ".maskrt-", ".tmp"  # what a killed process can leave behind; nothing else has such a name


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file: a temporary one in the same folder is written, fsynced and renamed. Folders are created.

    Raises:
        MaskrtError: the file cannot be written, for example because the disk is full; nothing is left behind.
    """
    try:
        write_files({path: data})
    except OSError as error:
        raise cannot_write(path, error) from error


def write_files(files: Mapping[Path, bytes], mode: int = 0o666) -> None:
    """Write files that belong together, each as write_bytes does; none is renamed before all are written.

    Args:
        mode: their permissions, less what the user's umask takes.

    Raises:
        OSError: one cannot be written; nothing is left behind.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            temporary = path.parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
            temporaries[temporary] = path
            path.parent.mkdir(parents=True, exist_ok=True)
            # "x" and not tempfile: the file gets the permissions of the user's umask, not 0600.
            with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in temporaries.items():
            os.replace(temporary, path)
    except BaseException:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed in `write_bytes`."""
    for file in folder.glob(f"{PREFIX}*{SUFFIX}"):
        file.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> MaskrtError:
    """Return the error for a file that the system does not let us write."""
    return MaskrtError(f"cannot write {path}: {error.strerror or error}: free space or choose another --out")


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file for reading. A pipe or a device, on which a read could wait for ever, is refused.

    Raises:
        InputError: nothing is there, it is no plain file, or it may not be read.
    """
    try:
        # O_NONBLOCK: opening a pipe to which nobody writes would wait. It changes nothing for a plain file.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}: check its permissions") from error
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{str(path)!r} cannot be the name of a file: {error}") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise InputError(f"{path} is not a plain file: give a file, not a folder, a pipe or a device")
    return os.fdopen(number, "rb")


def read_plain(path: Path, max_bytes: int) -> bytes:
    """Read a plain file of at most `max_bytes`; no more than that is read, whatever the file grows to meanwhile.

    Raises:
        InputError: see open_plain; also when it is larger.
    """
    with open_plain(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(f"{path} is larger than {max_bytes} bytes: give the file that is meant here")
    return data


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
