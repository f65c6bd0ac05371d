"""A folder of files that appears whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from maskrt.runtime.errors import InputError


@contextmanager
def whole_folder(out: Path, *, overwrite: bool, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a new folder beside `out` to write into. It becomes `out` when the block ends without an exception.

    Args:
        overwrite: replace a folder that is at `out`, but only where `ours` says that this program made it.

    Raises:
        InputError: `out` exists and may not be replaced; raised before the block runs.
    """
    _check_free(out, overwrite, ours)
    out = Path(os.path.abspath(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile.mkdtemp: its owner-only mode would stay with the finished folder.
    work = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    work.mkdir()
    try:
        yield work
        for file in work.iterdir():
            _sync(file)
        _sync(work)
        _check_free(out, overwrite, ours)  # an export takes minutes: something may have appeared
        _replace(work, out)
        _sync(out.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_free(out: Path, overwrite: bool, ours: Callable[[Path], bool]) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not ours(out):
        raise InputError(f"{out} exists and was not made by this command: choose another path")
    if not overwrite:
        raise InputError(f"{out} exists: choose another path, or use --overwrite")


def _replace(work: Path, out: Path) -> None:
    """Rename `work` to `out`. No folder with files can be renamed over: the old one is moved first, deleted last."""
    if not out.exists():
        os.replace(work, out)
        return
    old = work.with_suffix(".old")
    os.replace(out, old)
    try:
        os.replace(work, out)
    except BaseException:
        os.replace(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
