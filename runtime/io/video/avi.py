"""Walks over the chunks of an AVI file."""

from typing import BinaryIO

from maskrt.runtime.io.video.parts import Damage, cut_off, read_at, size_of

_DEPTH = 2  # lists of records in the list of frames
_INSIDE = (b"LIST", b"JUNK", b"JUNQ", b"idx1", b"indx")


def find_damage(file: BinaryIO) -> list[Damage]:
    """Return the damage that the sizes of the chunks show; each chunk follows the one before in its list."""
    at, size = 0, size_of(file)
    while at + 12 <= size:
        kind, length = _chunk(file, at)
        if kind != b"RIFF":
            return []  # what follows the last RIFF is none of the video's
        end = at + 8 + length
        if length == 0:
            return [Damage(size, size, "the recording was not finished: its header states no size")]
        if end > size + 8:  # some programs count the 8 bytes of the chunk's own header
            return [cut_off(size, end)]
        broken = _broken(file, at + 12, min(end, size), _DEPTH)
        if broken is not None:
            reason = f"the chunks of AVI break off after byte {broken}: a part is missing or overwritten"
            return [Damage(broken, end, reason)]
        at = end + end % 2
    return []


def _broken(file: BinaryIO, at: int, end: int, depth: int) -> int | None:
    """Return the last chunk between two places of the file before they stop to follow each other, if they do."""
    last = at
    while at + 8 <= end:
        kind, length = _chunk(file, at)
        after = at + 8 + length
        if after > end or not (kind in _INSIDE or _is_data(kind) or _is_text(kind)):
            return last
        if kind == b"LIST" and depth and read_at(file, at + 8, 4) in (b"movi", b"rec "):
            inner = _broken(file, at + 12, after, depth - 1)
            if inner is not None:
                return inner
        last, at = at, after + after % 2
    return None


def _chunk(file: BinaryIO, at: int) -> tuple[bytes, int]:
    head = read_at(file, at, 8)
    return head[:4], int.from_bytes(head[4:8], "little")


def _is_data(kind: bytes) -> bool:
    return kind[:2].isdigit() or kind[:2] == b"ix"


def _is_text(kind: bytes) -> bool:
    """Return whether a chunk has a name of four letters or digits, as those of metadata have."""
    return kind.rstrip().isalnum() and kind.isascii()
