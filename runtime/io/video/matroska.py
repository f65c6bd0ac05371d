"""Walks over the elements of a Matroska or WebM file (RFC 9559), and checks the checksums that are there."""

import zlib
from typing import BinaryIO

from maskrt.runtime.io.video.parts import Damage, cut_off, read_at, size_of

_EBML, _SEGMENT, _CLUSTER, _CRC, _VOID = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xBF, 0xEC
# Elements directly in a segment: SeekHead, Info, Tracks, Cues, Chapters, Attachments, Tags.
_LEVEL_1 = {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367, _CLUSTER, _VOID, _CRC}
# In a cluster: Timestamp, SilentTracks, Position, PrevSize, SimpleBlock, BlockGroup, EncryptedBlock.
_IN_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, _VOID, _CRC}
_MOST = 1000  # damages that are kept
_READ = 1 << 20


def find_damage(file: BinaryIO) -> list[Damage]:
    """Return the damage that sizes and checksums show.

    FFmpeg writes a CRC-32 into the clusters of Matroska, though not of WebM, and so does the Azure Kinect's recorder.
    FFmpeg's demuxer does not check it.
    """
    size, at, damages = size_of(file), 0, list[Damage]()
    while at < size and len(damages) < _MOST:
        element = _element(file, at)
        if element is None or element[0] not in (_EBML, _SEGMENT, _VOID):
            break  # what follows the segment is none of the video's
        kind, data, length = element
        end = size if length is None else data + length
        if kind == _SEGMENT:
            damages += _segment(file, data, min(end, size), length is None)
        if end > size:
            damages.append(cut_off(size, end))
        at = end
    return damages


def _segment(file: BinaryIO, at: int, end: int, open_ended: bool) -> list[Damage]:
    damages = list[Damage]()
    while at < end and len(damages) < _MOST:
        element = _element(file, at)
        if element is None or element[0] not in _LEVEL_1:
            after = _next_cluster(file, at + 1, end)
            damages.append(_broken(at, after))
            at = after
            continue
        kind, data, length = element
        after = end if length is None else data + length
        if kind == _CLUSTER:
            stop, broken = _cluster(file, data, min(after, end), length is None)
            if length is None:
                after = stop
            if broken is not None:
                damages.append(_broken(broken, _next_cluster(file, broken + 1, end)))
                after = after if after > end else damages[-1].end
        if after > end:  # the file was cut off inside this element
            return [*damages, cut_off(end, after)] if open_ended else damages
        if kind != _VOID and not _sum_fits(file, data, after):
            damages.append(Damage(at, after, f"bytes {at} to {after} differ from their checksum: copy it again"))
        at = after
    return damages


def _cluster(file: BinaryIO, at: int, end: int, open_ended: bool) -> tuple[int, int | None]:
    """Return where a cluster ends, and the last element before they stop to follow each other, if they do."""
    last = at
    while at < end:
        element = _element(file, at)
        if element is not None and open_ended and element[0] in _LEVEL_1 - _IN_CLUSTER:
            return at, None
        if element is None or element[0] not in _IN_CLUSTER or element[2] is None:
            return at, last
        if element[1] + element[2] > end:
            return at, at
        last, at = at, element[1] + element[2]
    return at, None


def _broken(at: int, after: int) -> Damage:
    return Damage(at, after, f"the elements of Matroska break off after byte {at}: a part is missing or overwritten")


def _next_cluster(file: BinaryIO, at: int, end: int) -> int:
    """Return where the next cluster starts; `end` if there is none."""
    start = _CLUSTER.to_bytes(4)
    while at < end:
        data = read_at(file, at, min(_READ, end - at))
        found = data.find(start)
        if found >= 0:
            return at + found
        at += max(1, len(data) - 3)
    return end


def _sum_fits(file: BinaryIO, at: int, end: int) -> bool:
    """Return whether the elements from `at` to `end` have the CRC-32 that their first one holds, if it holds one."""
    head = read_at(file, at, 6)
    if head[:2] != b"\xbf\x84":
        return True
    found, at = 0, at + 6
    while at < end:
        data = read_at(file, at, min(_READ, end - at))
        found, at = zlib.crc32(data, found), at + len(data)
        if not data:
            return False
    return found == int.from_bytes(head[2:], "little")


def _element(file: BinaryIO, at: int) -> tuple[int, int, int | None] | None:
    """Return an element's kind, where its data starts, and their length (None if it is not stated)."""
    head = read_at(file, at, 12)
    kind_bytes = 9 - head[0].bit_length() if head else 9
    if kind_bytes > 4 or len(head) <= kind_bytes:
        return None
    first = head[kind_bytes]
    length_bytes = 9 - first.bit_length()
    if length_bytes > 8 or len(head) < kind_bytes + length_bytes:
        return None
    field = int.from_bytes(head[kind_bytes : kind_bytes + length_bytes]) & ((1 << 7 * length_bytes) - 1)
    unknown = field == (1 << 7 * length_bytes) - 1
    return int.from_bytes(head[:kind_bytes]), at + kind_bytes + length_bytes, None if unknown else field
