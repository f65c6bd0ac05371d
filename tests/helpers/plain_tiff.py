"""Writes TIFF files byte by byte, so that a test knows what is in them."""

import struct
from pathlib import Path

import numpy as np


def write_tiff(
    path: Path, values: np.ndarray, photometric: int = 1, tags: dict[int, tuple[int, int]] | None = None, pages: int = 1
) -> Path:
    """Write grey [H, W] or RGB [H, W, 3] uncompressed, little-endian, in one strip a page.

    Args:
        photometric: 0 white is zero, 1 black is zero, 2 RGB.
        tags: number -> (type, value), over or beside those that are needed.
        pages: how many times the picture is written.
    """
    height, width = values.shape[:2]
    samples = values.shape[2] if values.ndim == 3 else 1
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    pixels = values.astype(values.dtype.newbyteorder("<")).tobytes()
    out, at = bytearray(struct.pack("<2sHI", b"II", 42, 8)), 8
    for page in range(pages):
        entries: dict[int, tuple[int, int]] = {
            254: (4, 0),
            256: (4, width),
            257: (4, height),
            258: (3, values.dtype.itemsize * 8),
            259: (3, 1),
            262: (3, photometric),
            273: (4, 0),
            277: (3, samples),
            278: (4, height),
            279: (4, len(pixels)),
            339: (3, form),
        } | (tags or {})
        head = 2 + 12 * len(entries) + 4
        bits_at = at + head
        strip_at = bits_at + 8
        entries[273] = (4, strip_at)
        out += struct.pack("<H", len(entries))
        for number, (kind, value) in sorted(entries.items()):
            several = samples if number == 258 and samples > 1 else 1
            out += struct.pack("<HHII", number, kind, several, bits_at if several > 1 else value)
        at = strip_at + len(pixels)
        out += struct.pack("<I", at if page < pages - 1 else 0)
        out += struct.pack("<4H", *[entries[258][1]] * 4)
        out += pixels
    path.write_bytes(bytes(out))
    return path
