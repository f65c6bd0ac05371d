"""Where an engine keeps what it has built from a model."""

import os
import stat
from pathlib import Path

from maskrt.runtime.bundle import sha256_of
from maskrt.runtime.errors import ProviderUnavailable

FOLDER = "engines"


def engine_cache(model: Path, engine: str) -> Path:
    """A folder for the engines built from one file: FOLDER/ENGINE/KEY beside it, or else in the user's cache.

    The key is the sha256 of the file and of weights beside it, since ONNX Runtime does not look at weights when it
    reuses an engine. An engine is code for the GPU that is run as it is found, so every folder on the way belongs to
    this user and only they may write to it.

    Args:
        model: the ONNX file, in its bundle.
        engine: what builds, such as "ort-tensorrt".

    Raises:
        ProviderUnavailable: there is no such folder.
    """
    weights = model.with_name(f"{model.name}.data")
    key = "-".join(sha256_of(file)[:16] for file in (model, weights) if file.exists())
    roots = model.parent / FOLDER, user_cache() / "maskrt" / FOLDER
    for root in roots:
        parts = root, root / engine, root / engine / key
        try:
            for part in parts:
                part.mkdir(mode=0o700, parents=part is root, exist_ok=True)
        except OSError:  # a bundle that cannot be written to, as it should be where others use it
            continue
        if all(_private(part) for part in parts) and os.access(parts[-1], os.W_OK):
            return parts[-1]
    raise ProviderUnavailable(
        f"{engine} has no folder for its engines that this user alone can write to: tried {roots[0]} and {roots[1]}; "
        "remove what is there, or set XDG_CACHE_HOME"
    )


def user_cache() -> Path:
    """The folder of the user's caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _private(folder: Path) -> bool:
    status = folder.lstat()
    owned = not hasattr(os, "getuid") or status.st_uid == os.getuid()  # Windows has neither owner nor mode
    return stat.S_ISDIR(status.st_mode) and owned and not status.st_mode & 0o022
