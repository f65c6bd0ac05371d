"""Folders for engines: in a bundle, or in the user's cache.

An engine is code that runs as it is found, so every folder on the way to one belongs to this user and nobody else may
write to it.
"""

import errno
import hashlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from maskrt.runtime.errors import ProviderUnavailable
from maskrt.runtime.files import sha256_of

FOLDER = "engines"


@dataclass(frozen=True)
class EngineFolder:
    """A folder, made when it is needed. root: the first on the way that must be this user's; below: the rest."""

    root: Path
    below: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The path ROOT/BELOW/..."""
        return self.root.joinpath(*self.below)

    def check(self) -> None:
        """Make sure that nobody else could have put something here.

        Raises:
            OSError: a folder on the way is absent, a link, another user's, or open to others.
        """
        for count in range(len(self.below) + 1):
            _check_private(self.root.joinpath(*self.below[:count]))

    def make(self) -> None:
        """Make the folder, for its owner alone, and make sure that it can be written.

        Raises:
            OSError: it cannot be made or written, or see check().
        """
        self.root.parent.mkdir(parents=True, exist_ok=True)
        for count in range(len(self.below) + 1):
            part = self.root.joinpath(*self.below[:count])
            part.mkdir(mode=0o700, exist_ok=True)
            _check_private(part)
        tempfile.TemporaryFile(dir=self.folder).close()


def user_root() -> Path:
    """Return the folder of all engines in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskrt" / FOLDER


def bundle_places(bundle: Path, *below: str) -> tuple[EngineFolder, EngineFolder]:
    """Return BUNDLE/engines/BELOW, and the same in the user's cache under the bundle's name and its path's hash."""
    bundle = bundle.resolve()
    place = hashlib.sha256(os.fsencode(bundle)).hexdigest()[:12]
    name = f"{plain(bundle.name)}-{place}"
    return EngineFolder(bundle / FOLDER, below), EngineFolder(user_root(), (name, *below))


def unsigned_cache(model: Path, engine: str) -> Path:
    """Make and return a folder for what an engine builds from one file and runs again without checking its origin.

    It lies in the user's cache, never in a bundle: what lies there may have come along with the bundle. The key is the
    sha256 of the file and of weights beside it, since ONNX Runtime does not look at weights when it reuses an engine.

    Args:
        model: the ONNX file.
        engine: what builds, such as "ort-tensorrt".

    Raises:
        ProviderUnavailable: there is no such folder.
    """
    weights = model.with_name(f"{model.name}.data")
    key = "-".join(sha256_of(file)[:16] for file in (model, weights) if file.exists())
    place = EngineFolder(user_root(), (engine, key))
    try:
        place.make()
    except OSError as error:
        why = f"{error.filename or place.folder}: {error.strerror or error}"
        raise ProviderUnavailable(
            f"{engine} has no folder for its engines that this user alone can write to ({why}): "
            "remove what is there, or set XDG_CACHE_HOME"
        ) from error
    return place.folder


def plain(name: str) -> str:
    """Replace what a file's name may not have on some system."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def trusted_owners() -> tuple[int, ...]:
    """Return the users whose files may run: this one and root, who could become this one. Windows has none: empty."""
    return (0, os.geteuid()) if os.name == "posix" else ()


def open_to_others(status: os.stat_result) -> bool:
    """Return whether another user owns a file or folder, or may change it."""
    owners = trusted_owners()
    return bool(owners) and (status.st_uid not in owners or bool(status.st_mode & 0o022))


def _check_private(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "a link or a file where a folder should be", str(folder))
    if open_to_others(status):
        raise PermissionError(errno.EACCES, "others than its owner can change it", str(folder))
