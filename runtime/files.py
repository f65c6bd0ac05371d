"""Writing of files, which are whole or absent whatever happens meanwhile; reading of plain ones; and their sha256."""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from maskrt.runtime.errors import InputError, MaskrtError

FIXES = {
    errno.ENOSPC: "free space or choose another --out",
    errno.EDQUOT: "free space, have the quota raised, or choose another --out",
    errno.EACCES: "change its permissions or choose another --out",
    errno.EPERM: "change its permissions or choose another --out",
    errno.EROFS: "choose an --out that can be written to",
    errno.ENAMETOOLONG: "shorten the name or choose an --out with a shorter path",
    errno.EMFILE: "close other files, or raise the limit with ulimit -n",
    errno.ENFILE: "end other programs, which hold too many files open",
    errno.ENOTDIR: "a part of its path is a file: choose another --out",
    errno.EISDIR: "a folder has this name: move it or choose another --out",
    errno.ELOOP: "its path goes in a circle of links: choose another --out",
    errno.EFBIG: "this disk or ulimit -f takes no larger files: choose another --out",
    errno.EINVAL: "this disk takes no such name: rename the input or choose another --out",
    errno.EIO: "the disk has a fault: choose another --out",
}
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
        for folder in {path.parent for path in files}:
            sync_folder(folder)
    except BaseException:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Put a folder's list of names on the disk, without which a renamed file can be gone after a loss of power."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows has no such call
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network disks do not know it
            raise
    finally:
        os.close(number)


def longest_name(folder: Path) -> int:
    """Return how many bytes the name of a file may have in a folder, or in the nearest one above that exists."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        return os.pathconf(existing, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, and disks that do not say
        return 255


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed in `write_bytes`."""
    for file in folder.glob(f"{PREFIX}*{SUFFIX}"):
        file.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> MaskrtError:
    """Return the error for a file that the system does not let us write."""
    fix = FIXES.get(error.errno or 0, "choose another --out")
    return MaskrtError(f"cannot write {path}: {error.strerror or error}: {fix}")


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
        raise InputError(f"{path} is larger than {max_bytes} bytes, which no such file is: give the right one")
    return data


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
