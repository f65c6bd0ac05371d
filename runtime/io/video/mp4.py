"""Walks over the boxes of an MP4 or QuickTime file (ISO/IEC 14496-12)."""

from typing import BinaryIO

from maskrt.runtime.io.video.parts import Damage, cut_off, read_at, size_of

# Boxes at the top of a file. Others are taken for what cameras append, unless the file is made of fragments.
_TOP = b"ftyp styp moov moof mdat free skip wide meta uuid udta sidx ssix prft emsg mfra pnot pdin bloc".split()
_TABLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_DEPTH = 10  # FFmpeg refuses boxes that are nested deeper


def find_damage(file: BinaryIO) -> list[Damage]:
    """Return the damage that the sizes of the top boxes show: each box follows the one before up to the file's end."""
    at, size, fragmented = 0, size_of(file), False
    while at < size:
        kind, end = _box(file, at, size)
        fragmented |= kind == b"moof"
        if kind not in _TOP:
            reason = f"there is no box of an MP4 file at byte {at}: a part is missing or overwritten"
            return [Damage(at, size, reason)] if fragmented else []
        if end > size:
            return [cut_off(size, end)]
        at = end
    return []


def most_samples(file: BinaryIO) -> int:
    """Return the largest number of samples that a table of the header states, for all tracks together or one.

    FFmpeg expands the tables in memory to 24 bytes a sample and more before anything can be asked of it, whatever the
    size of the file is.
    """
    return _most_samples(file, 0, size_of(file), _DEPTH)


def _most_samples(file: BinaryIO, at: int, end: int, depth: int) -> int:
    most = 0
    while at + 8 <= end:
        kind, after = _box(file, at, end)
        after = min(after, end)
        if kind in _TABLES and depth:
            most = max(most, _most_samples(file, at + 8, after, depth - 1))
        elif kind == b"stsz":
            most = max(most, int.from_bytes(read_at(file, at + 16, 4)))
        elif kind in (b"stts", b"ctts"):
            table = read_at(file, at + 16, min(after - at - 16, 1 << 24))
            most = max(most, sum(int.from_bytes(table[place : place + 4]) for place in range(0, len(table) - 7, 8)))
        at = after
    return most


def _box(file: BinaryIO, at: int, end: int) -> tuple[bytes, int]:
    """Return the kind of the box at `at` and where it ends; at least 8 bytes further."""
    head = read_at(file, at, 16)
    size, kind = int.from_bytes(head[:4]), head[4:8]
    if size == 0:
        return kind, end  # up to the end of the file
    if size == 1:
        size = int.from_bytes(head[8:16])
    return kind, at + max(size, 8)
