"""A place in a file that is damaged, and reading at a place: shared by the walks over containers."""

import os
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Damage:
    """Bytes start to end of a file that are certainly damaged; start is the file's size where it was cut off."""

    start: int
    end: int
    reason: str


def size_of(file: BinaryIO) -> int:
    """Return the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def read_at(file: BinaryIO, start: int, count: int) -> bytes:
    """Read up to `count` bytes from a place, none where a cut box leaves fewer than 0; the file's position moves."""
    file.seek(start)
    return file.read(max(count, 0))


def cut_off(size: int, stated: int) -> Damage:
    """Return the damage of a file that ends before the end that it states."""
    return Damage(size, stated, f"cut off: the file ends at byte {size}, its header says {stated}: copy it again")
