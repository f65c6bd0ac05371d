"""The one place where the command line prints: what comes from outside cannot steer the terminal."""

import os
import sys
import warnings

from rich.console import Console
from rich.table import Table

from maskrt.runtime.text import printable


def say(*lines: str, err: bool = False) -> None:
    """Print lines on stdout, or on stderr. A newline inside one is printed as an escape, so that it forges no line."""
    stream = "stderr" if err else "stdout"
    try:
        for line in lines:
            print(printable(line), file=getattr(sys, stream), flush=True)
    except BrokenPipeError:  # the reader has gone, as `head` does; the work goes on without it
        setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115


def say_text(text: str) -> None:
    """Print text of several lines, such as JSON, on stdout."""
    say(*text.splitlines())


def say_table(table: Table) -> None:
    """Print a table on stdout; its cells are plain text, made printable by cells()."""
    Console(markup=False, highlight=False).print(table)


def cells(*texts: str) -> tuple[str, ...]:
    """Return a row of a table, as the terminal may show it."""
    return tuple(map(printable, texts))


def survive_any_name() -> None:
    """Let both streams print letters that their encoding lacks as escapes, and not fail when the work is done."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # absent where a test or a host program has replaced it
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def say_warnings() -> None:
    """Print warnings of Python as one line each, without the line of code that they came from.

    Those of Pillow are about metadata that steers nothing; what concerns pixels is refused.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.showwarning = lambda message, *where, **more: say(f"warning: {message}", err=True)
