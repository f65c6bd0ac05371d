"""Hears what libtiff says while it decodes: Pillow lets it print to the terminal, and goes on after its warnings."""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# A line of libtiff: the function or the name that Pillow gives its file, a colon, a sentence.
LINE = re.compile(
    rb"^(tempfile\.tif|JPEGLib|\w*(Decode|PreDecode|Setup|Fetch|Read|Directory|Open|Seek|Tag|Strip|Tile)\w*): "
)
_one_at_a_time = threading.Lock()


@contextmanager
def listened() -> Iterator[list[str]]:
    """Collect libtiff's lines in the list, which is filled at the end of the block; other lines are passed on."""
    said: list[str] = []
    with _one_at_a_time, tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(terminal, 2)
            kept.seek(0)
            for line in kept.read().splitlines(keepends=True):
                if LINE.match(line):
                    said.append(line.decode("utf-8", "replace").strip())
                else:  # another thread's
                    os.write(terminal, line)
            os.close(terminal)
