"""Checks a JPEG for all that a decoder would warn of and fill in: libjpeg goes on with grey where data are missing.

The segments are read here; maskrt.kernels.jpeg_scan walks the entropy-coded data. Source: ITU-T T.81, annex B; the
findings are those of libjpeg's warnings, with one more: zeros where the tables make no picture of them.
"""

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.jpeg_scan.cpu import walk_scan
from maskrt.kernels.jpeg_scan.types import BAD_CODE, BAD_RESTART, TOO_SHORT, WHOLE, Scan
from maskrt.runtime.io.structure import MAX_METADATA, Damaged

MAX_SCANS = 100  # encoders write about ten; 400 more in 200 KB cost Pillow 8 s at 30 megapixels
MAX_SEGMENTS = 10_000
ZERO_RUN = 64  # bytes of zeros that are damage where the tables' shortest codes are no empty block
EOI, SOS, DQT, DHT, DRI, DNL, APP0, APP14, COM = 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xDC, 0xE0, 0xEE, 0xFE
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
FRAMES = {*range(0xC0, 0xD0)} - {DHT, 0xC8, 0xCC}
SAID = {
    BAD_CODE: "its data hold bits that are no code",
    TOO_SHORT: "its data end before the picture does",
    BAD_RESTART: "a restart marker is missing or out of order",
}


@dataclass
class _Component:
    number: int
    wide: int
    tall: int
    offset: int = 0  # of its blocks, in the bits that say which coefficients are nonzero
    stride: int = 0
    blocks_wh: tuple[int, int] = (0, 0)
    known: list[int] = field(default_factory=lambda: [-1] * 64)  # the bits of each coefficient that have come


@dataclass
class _State:
    """The content of the segments up to here."""

    components: list[_Component] = field(default_factory=list)
    mcus_wh: tuple[int, int] = (0, 0)
    progressive: bool = False
    restart: int = 0
    scans: int = 0
    codes: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((8, 1 << 16), np.uint16))
    nonzero: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    adobe: int | None = None


def check_jpeg(data: bytes) -> None:
    """Check a whole file.

    Raises:
        Damaged: it is cut off or damaged, or would take far longer to decode than a picture of its size.
    """
    state, at, metadata, segments = _State(), 2, 0, 0
    values = np.frombuffer(data, np.uint8)
    while True:
        marker, at = _next_marker(data, at)
        if marker == EOI:
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            raise Damaged("it has a marker where none belongs")
        if at + 2 > len(data):
            raise Damaged("the file ends within a segment: it is cut off")
        (size,) = struct.unpack_from(">H", data, at)
        body = data[at + 2 : at + size]
        if size < 2 or len(body) != size - 2:
            raise Damaged("the file ends within a segment: it is cut off")
        at += size
        segments += 1
        metadata += size if marker >= APP0 else 0
        if segments > MAX_SEGMENTS or metadata > MAX_METADATA:
            raise Damaged(f"it has more than {MAX_SEGMENTS} segments, or {MAX_METADATA >> 20} MB beside its pixels")
        try:
            if marker == SOS:
                at = _scan(values, at, body, state)
            else:
                _segment(marker, body, state)
        except (IndexError, struct.error) as error:
            raise Damaged("a segment is shorter than it must be") from error
    if state.scans == 0:
        raise Damaged("it has no pixels")


def _next_marker(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise Damaged("it has no end: it is cut off")
    if data[at] != 0xFF:
        raise Damaged("it has bytes between its segments")
    while at < len(data) and data[at] == 0xFF:
        at += 1
    if at >= len(data):
        raise Damaged("it has no end: it is cut off")
    if data[at] == 0:
        raise Damaged("it has bytes between its segments")
    return data[at], at + 1


def _segment(marker: int, body: bytes, state: _State) -> None:
    if marker in FRAMES:
        _frame(marker, body, state)
    elif marker == DHT:
        _tables(body, state.codes)
    elif marker == DRI:
        (state.restart,) = struct.unpack(">H", body)
    elif marker == DNL:
        raise Damaged("its height comes after its pixels, which decoders ignore")
    elif marker == APP0 and body.startswith(b"JFIF\0") and body[5] != 1:
        raise Damaged(f"it is of JFIF version {body[5]}, and decoders know 1")
    elif marker == APP14 and body.startswith(b"Adobe") and len(body) >= 12:
        state.adobe = body[11]


def _frame(marker: int, body: bytes, state: _State) -> None:
    if marker not in (BASELINE, EXTENDED, PROGRESSIVE):
        raise Damaged("it is coded arithmetically or without loss, which maskrt does not read")
    if state.components:
        raise Damaged("it has two frames")
    precision, height, width, count = struct.unpack_from(">BHHB", body)
    if precision != 8:
        raise Damaged(f"it has {precision} bits a sample, and maskrt reads 8")
    if height == 0 or width == 0 or count not in (1, 3, 4) or len(body) != 6 + 3 * count:
        raise Damaged("its header states no picture")
    for at in range(6, 6 + 3 * count, 3):
        wide, tall = body[at + 1] >> 4, body[at + 1] & 15
        if not (1 <= wide <= 4 and 1 <= tall <= 4):
            raise Damaged("its header states sampling factors that do not exist")
        state.components.append(_Component(body[at], wide, tall))
    known = {0, 1} if count == 3 else {0, 2}
    if state.adobe is not None and count > 1 and state.adobe not in known:
        raise Damaged(f"its colours are of an unknown kind (transform {state.adobe})")
    widest, tallest = max(c.wide for c in state.components), max(c.tall for c in state.components)
    state.progressive = marker == PROGRESSIVE
    state.mcus_wh = -(-width // (8 * widest)), -(-height // (8 * tallest))
    offset = 0
    for one in state.components:
        one.offset, one.stride = offset, state.mcus_wh[0] * one.wide
        one.blocks_wh = -(-width * one.wide // (8 * widest)), -(-height * one.tall // (8 * tallest))
        offset += one.stride * state.mcus_wh[1] * one.tall
    # Only a progressive picture has a history; the walk reads one number a block in any case.
    state.nonzero = np.zeros(offset, np.uint64)


def _tables(body: bytes, codes: NDArray[np.uint16]) -> None:
    """Read Huffman tables: rows 0 to 3 for DC, 4 to 7 for AC. Source: ITU-T T.81, annex C."""
    at = 0
    while at < len(body):
        kind, number = body[at] >> 4, body[at] & 15
        lengths, at = body[at + 1 : at + 17], at + 17
        symbols = body[at : at + sum(lengths)]
        if kind > 1 or number > 3 or len(lengths) != 16 or len(symbols) != sum(lengths) or len(symbols) > 256:
            raise Damaged("a table of its codes is damaged")
        row = codes[4 * kind + number]
        row[:] = 0
        code, place = 0, 0
        for length, count in enumerate(lengths, 1):
            for symbol in symbols[place : place + count]:
                if code >= 1 << length:
                    raise Damaged("a table of its codes is damaged")
                row[code << (16 - length) : (code + 1) << (16 - length)] = length << 8 | symbol
                code += 1
            place += count
            code <<= 1
        at += len(symbols)


def _scan(values: NDArray[np.uint8], at: int, body: bytes, state: _State) -> int:
    """Check one scan and return where its data end."""
    state.scans += 1
    if state.scans > MAX_SCANS:
        raise Damaged(f"it has more than {MAX_SCANS} scans, and no encoder writes so many")
    count = body[0]
    first, last, high, low = body[-3], body[-2], body[-1] >> 4, body[-1] & 15
    if not 1 <= count <= 4 or len(body) != 4 + 2 * count:
        raise Damaged("the header of a scan is damaged")
    by_number = {one.number: one for one in state.components}
    rows, chosen = [], []
    for number, tables in zip(body[1 : 1 + 2 * count : 2], body[2 : 2 + 2 * count : 2], strict=True):
        if number not in by_number or by_number[number] in chosen or tables >> 4 > 3 or tables & 15 > 3:
            raise Damaged("the header of a scan is damaged")
        one = by_number[number]
        chosen.append(one)
        wide, tall = (one.wide, one.tall) if count > 1 else (1, 1)
        rows.append((wide, tall, tables >> 4, 4 + (tables & 15), one.offset, one.stride))
    _check_order(state.progressive, chosen, first, last, high, low)
    scan = Scan(
        layout=np.array(rows, np.int64),
        mcus_wh=state.mcus_wh if count > 1 else chosen[0].blocks_wh,
        restart=state.restart,
        spectral=(first, last),
        approximation=(high, low),
        progressive=state.progressive,
        codes=state.codes,
    )
    verdict, end = walk_scan(values, at, scan, state.nonzero)
    if verdict != WHOLE:
        raise Damaged(SAID[verdict])
    if end + 1 < len(values) and (values[end] != 0xFF or values[end + 1] == 0):
        raise Damaged("a scan has more data than the picture needs")
    if not high and not _zeros_are_empty(scan) and _longest_zeros(values[at:end]) >= ZERO_RUN:
        raise Damaged(f"{ZERO_RUN} bytes or more of its data are zeros, which no encoder writes with its tables")
    return end


def _check_order(progressive: bool, chosen: list[_Component], first: int, last: int, high: int, low: int) -> None:
    """Check that a scan brings what has not come yet. Source: libjpeg, jdphuff.c, start_pass."""
    if not progressive:
        if (first, last, high, low) != (0, 63, 0, 0):
            raise Damaged("a scan of it is of another kind than its frame")
        return
    if last > 63 or first > last or (first == 0 and last != 0) or (first and len(chosen) > 1) or low > 13:
        raise Damaged("the header of a scan is damaged")
    for one in chosen:
        if first and one.known[0] < 0:
            raise Damaged("its scans are out of order")
        for at in range(first, last + 1):
            if high != max(one.known[at], 0):
                raise Damaged("its scans are out of order")
            one.known[at] = low


def _zeros_are_empty(scan: Scan) -> bool:
    """Return whether the tables write an empty block with zeros alone: then long runs of zeros are flat areas."""
    for row in scan.layout.tolist():
        if scan.spectral[0] == 0 and scan.codes[row[2], 0] & 255:
            return False
        ends = int(scan.codes[row[3], 0]) & 255
        if scan.spectral[1] > 0 and (ends & 15 or ends == 0xF0):
            return False
    return True


def _longest_zeros(data: NDArray[np.uint8]) -> int:
    places = np.flatnonzero(data)
    edges = np.concatenate(([-1], places, [len(data)]))
    return int(np.diff(edges).max()) - 1
