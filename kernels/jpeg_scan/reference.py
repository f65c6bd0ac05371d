"""The definition of a whole scan, in plain Python: every bit is taken from a list."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.jpeg_scan.types import BAD_CODE, BAD_RESTART, TOO_SHORT, WHOLE, Scan


class _Verdict(Exception):
    """Ends the walk; its argument is the verdict."""


def walk_scan(data: NDArray[np.uint8], start: int, scan: Scan, nonzero: NDArray[np.uint64]) -> tuple[int, int]:
    """Walk one scan.

    Args:
        data: uint8 [n], the whole file.
        start: where the scan's entropy-coded data begin.
        nonzero: uint64 [blocks], one bit for each coefficient that earlier scans have made nonzero; this scan adds its
            own. Only progressive scans use it.

    Returns:
        WHOLE, BAD_CODE (bits that are no code, or a coefficient past the last), TOO_SHORT (a marker comes before all
        blocks are there) or BAD_RESTART (a restart marker is missing, out of order, or comes late); and where the data
        end. If the scan is whole and the next marker does not begin there, it has data too many.

    Source: ITU-T T.81, F.2.2 and G.2; the verdicts are where libjpeg warns.
    """
    pieces = _pieces(data, start)
    bits, end, marker = next(pieces)
    end_run = 0
    parts = len(scan.layout)
    try:
        for mcu in range(scan.mcus_wh[0] * scan.mcus_wh[1]):
            if scan.restart and mcu and mcu % scan.restart == 0:
                if len(bits) >= 8 or marker != 0xD0 + (mcu // scan.restart - 1) % 8:
                    return BAD_RESTART, end
                bits, end, marker = next(pieces)
                end_run = 0
            row, column = divmod(mcu, scan.mcus_wh[0])
            for wide, tall, dc, ac, offset, stride in scan.layout.tolist():
                for block in range(wide * tall):
                    down, right = divmod(block, wide)
                    at = (row * tall + down) * stride + column * wide + right if parts > 1 else row * stride + column
                    end_run = _block(bits, scan, dc, ac, nonzero, offset + at, end_run)
    except _Verdict as verdict:
        return verdict.args[0], end
    return WHOLE, end - len(bits) // 8


def _pieces(data: NDArray[np.uint8], start: int) -> Iterator[tuple[list[int], int, int]]:
    """Yield the bits between two markers, the last one first, where the marker after them begins, and which it is."""
    at, size = start, len(data)
    while True:
        bytes_, end, marker = [], size, -1
        while at < size:
            byte, after = int(data[at]), at + 1
            if byte == 0xFF:
                while after < size and data[after] == 0xFF:
                    after += 1
                if after >= size or data[after] != 0:
                    end, marker = at, int(data[after]) if after < size else -1
                    at = after + 1
                    break
                after += 1
            at = after
            bytes_.append(byte)
        yield [byte >> bit & 1 for byte in reversed(bytes_) for bit in range(8)], end, marker


def _take(bits: list[int], count: int) -> int:
    value = 0
    for _ in range(count):
        if not bits:
            raise _Verdict(TOO_SHORT)
        value = value << 1 | bits.pop()
    return value


def _symbol(bits: list[int], codes: NDArray[np.uint16]) -> int:
    ahead = [*reversed(bits[-16:])]
    look = int("".join(map(str, (ahead + [0] * 16)[:16])), 2)
    code = int(codes[look])
    if code == 0:
        raise _Verdict(BAD_CODE if len(bits) >= 16 else TOO_SHORT)
    _take(bits, code >> 8)
    return code & 255


def _block(bits: list[int], scan: Scan, dc: int, ac: int, nonzero: NDArray[np.uint64], place: int, end_run: int) -> int:
    """Take the bits of one block; return how many blocks after it have ended already."""
    (first, last), (high, _) = scan.spectral, scan.approximation
    if first == 0:
        size = 1 if high else _symbol(bits, scan.codes[dc])
        _take(bits, size)
        if size > 16:
            raise _Verdict(BAD_CODE)
        if scan.progressive:
            return end_run
    known = int(nonzero[place])
    k = max(first, 1)
    while k <= last and end_run == 0:
        symbol = _symbol(bits, scan.codes[ac])
        run, size = symbol >> 4, symbol & 15
        if size == 0 and run < 15:
            if not scan.progressive:
                return 0
            end_run = (1 << run) + _take(bits, run)
            break
        if high and size > 1:
            raise _Verdict(BAD_CODE)
        _take(bits, size)
        if high:
            while k <= last:
                if known >> k & 1:
                    _take(bits, 1)
                elif run == 0:
                    break
                else:
                    run -= 1
                k += 1
        else:
            k += run
        if size:
            if k > last:
                raise _Verdict(BAD_CODE)
            known |= 1 << k
        k += 1
    if end_run:
        if high:
            _take(bits, sum(known >> at & 1 for at in range(k, last + 1)))
        end_run -= 1
    if scan.progressive:
        nonzero[place] = known
    return end_run
