"""Keeps a second `maskrt annotate` out of a folder, whose objects it would write over."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskrt.runtime.errors import InputError
from maskrt.runtime.files import cannot_write

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two of them apart there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Lock a folder, which is made if it does not exist, to the end of the `with` block; a crash frees it too.

    The lock is on the folder itself and leaves no file in it.

    Raises:
        InputError: another `maskrt annotate` has it, or it is no folder.
        MaskrtError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = None if fcntl is None else os.open(out, os.O_RDONLY)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out} is a file: choose a folder for --out") from error
    except OSError as error:
        raise cannot_write(out, error) from error
    if folder is None:
        yield
        return
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another maskrt annotate works in {out}: end it with Ctrl-C, or choose another --out"
            ) from error
        except OSError:
            pass  # some network file systems have no locks; the store still notices a change by another program
        yield
    finally:
        os.close(folder)
