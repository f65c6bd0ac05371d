"""Checks a file's structure for damage and for cost, before a decoder sees it.

Decoders fill in what is missing, so that a damaged picture looks like a good one. Here is refused what each format can
tell; docs/inputs.md lists what it cannot.
"""

import struct
import zlib


class Damaged(Exception):
    """The bytes are not a whole, plain picture of their format; the message says why."""


MAX_METADATA = 16 << 20  # bytes of comments, profiles and EXIF data
MAX_PAGES = 1_000  # of a TIFF, thumbnails among them: 20,000 in 2.5 MB took 4 s to be counted
MAX_TAGS = 4_096  # of a page; cameras write under 100
MAX_STRIPS = 200_000  # strips or tiles: 50 megapixels in tiles of 16 x 16 have 195,313; a million cost 8 s and 0.8 GB
MAX_CHUNKS = 100_000  # of a PNG: a picture of 50 megapixels in chunks of 8 KB, as libpng writes them, has 20,000


# First bytes -> order of bytes; the forms of an offset and of the number of a page's tags; bytes of an offset.
TIFF = {
    b"II*\0": ("<", "I", "H", 4),
    b"MM\0*": (">", "I", "H", 4),
    b"II+\0": ("<", "Q", "Q", 8),
    b"MM\0+": (">", "Q", "Q", 8),
}
STRIPS = {273, 279, 324, 325}  # offsets and sizes of strips and tiles


def check_structure(data: bytes) -> None:
    """Check a file's structure.

    Raises:
        Damaged: it is cut off, damaged, or would cost far more than a picture of its size.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data)
    elif data.startswith(b"\xff\xd8"):
        from maskrt.runtime.io.jpeg import check_jpeg

        check_jpeg(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_webp(data)
    elif data[:2] == b"BM":
        _check_bmp(data)
    elif data[:4] in TIFF:
        _check_tiff(data)


def _check_png(data: bytes) -> None:
    """Walk the chunks up to IEND. Source: PNG specification, third edition, chapter 5."""
    at, count, other = 8, 0, 0
    while at + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + size > len(data):
            raise Damaged("the file ends within a chunk: it is cut off")
        count += 1
        if name == b"IEND":
            return
        if name != b"IDAT":
            other += size
        if count > MAX_CHUNKS:
            raise Damaged(f"it has more than {MAX_CHUNKS} chunks, and no picture needs so many")
        if other > MAX_METADATA:
            raise Damaged(f"it has more than {MAX_METADATA >> 20} MB beside its pixels")
        if name in (b"zTXt", b"iTXt", b"iCCP"):
            _check_inflated(data[at + 8 : at + 8 + size])
        at += 12 + size
    raise Damaged("it has no end: it is cut off")


def _check_inflated(chunk: bytes) -> None:
    """Refuse compressed text that unpacks to more than metadata may have."""
    for start in range(min(len(chunk), 200)):  # a keyword and flags come before the zlib stream
        if chunk[start : start + 1] == b"\x78":
            inflater = zlib.decompressobj()
            try:
                inflater.decompress(chunk[start:], MAX_METADATA)
            except zlib.error:
                continue
            if inflater.unconsumed_tail:
                raise Damaged(f"it has text that unpacks to more than {MAX_METADATA >> 20} MB")


def _check_webp(data: bytes) -> None:
    """Walk the chunks of a RIFF file. Source: WebP container specification."""
    (stated,) = struct.unpack_from("<I", data, 4)
    if stated + 8 > len(data):
        raise Damaged(f"its header states {stated + 8} bytes, the file has {len(data)}: it is cut off")
    at, end, count, other = 12, stated + 8, 0, 0
    while at + 8 <= end:
        name, size = struct.unpack_from("<4sI", data, at)
        if at + 8 + size > end:
            raise Damaged("the file ends within a chunk: it is cut off")
        count += 1
        other += 0 if name in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF") else size
        if count > MAX_CHUNKS or other > MAX_METADATA:
            raise Damaged(f"it has more than {MAX_CHUNKS} chunks, or {MAX_METADATA >> 20} MB beside its pixels")
        at += 8 + size + (size & 1)


def _check_bmp(data: bytes) -> None:
    """Compare the bytes that uncompressed rows need with those that are there."""
    if len(data) < 54:
        raise Damaged("the file ends within its header: it is cut off")
    offset, header = struct.unpack_from("<I", data, 10)[0], struct.unpack_from("<I", data, 14)[0]
    if header < 40:
        return
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression in (0, 3) and offset + (width * bits + 31) // 32 * 4 * abs(height) > len(data):
        raise Damaged("it has fewer pixels than its header states: it is cut off")


def _check_tiff(data: bytes) -> None:
    """Walk the pages and count their tags and strips. Source: TIFF 6.0, section 2, and the BigTIFF design."""
    order, offset, count, width = TIFF[data[:4]]
    seen = set[int]()
    try:
        (at,) = struct.unpack_from(order + offset, data, width)
        while at and at not in seen:
            seen.add(at)
            (tags,) = struct.unpack_from(order + count, data, at)
            if len(seen) > MAX_PAGES or tags > MAX_TAGS:
                raise Damaged(f"it has more than {MAX_PAGES} pages, or {MAX_TAGS} tags on one of them")
            at += struct.calcsize(order + count)
            for _ in range(tags):
                number, _, values = struct.unpack_from(f"{order}HH{offset}", data, at)
                if number in STRIPS and values > MAX_STRIPS:
                    raise Damaged(f"it is cut into {values} strips or tiles, and maskrt reads up to {MAX_STRIPS}")
                at += 4 + 2 * width
            (at,) = struct.unpack_from(order + offset, data, at)
    except struct.error as error:
        raise Damaged("the file ends within its tags: it is cut off") from error
