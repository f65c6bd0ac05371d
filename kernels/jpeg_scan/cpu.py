"""The walk over a scan, compiled. See reference.py for the definition of the answer."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.jit import kernel
from maskrt.kernels.jpeg_scan.types import BAD_CODE, BAD_RESTART, TOO_SHORT, WHOLE, Scan


def walk_scan(data: NDArray[np.uint8], start: int, scan: Scan, nonzero: NDArray[np.uint64]) -> tuple[int, int]:
    """Return the verdict on a scan and where its data end; see reference.walk_scan."""
    verdict, end = _walk(
        data,
        start,
        scan.layout,
        scan.mcus_wh[0],
        scan.mcus_wh[1],
        scan.restart,
        scan.spectral[0],
        scan.spectral[1],
        scan.approximation[0],
        scan.progressive,
        scan.codes,
        nonzero,
    )
    return int(verdict), int(end)


@kernel
def _fill(data: NDArray[np.uint8], at: int, bits: Any, count: int) -> tuple[int, Any, int]:
    """Take whole bytes into the bit buffer until it has 48 bits or a marker comes."""
    size = data.shape[0]
    while count <= 48 and at < size:
        byte = data[at]
        if byte == 0xFF:
            after = at + 1
            while after < size and data[after] == 0xFF:
                after += 1
            if after >= size or data[after] != 0:
                break
            at = after
        at += 1
        bits = (bits << np.uint64(8)) | np.uint64(byte)
        count += 8
    return at, bits, count


@kernel
def _next_16(bits: Any, count: int) -> Any:
    """Return the next 16 bits, zeros where there are fewer."""
    if count >= 16:
        return (bits >> np.uint64(count - 16)) & np.uint64(0xFFFF)
    return (bits << np.uint64(16 - count)) & np.uint64(0xFFFF)


@kernel
def _walk(
    data: NDArray[np.uint8],
    start: int,
    layout: NDArray[np.int64],
    mcus_wide: int,
    mcus_high: int,
    restart: int,
    first: int,
    last: int,
    high: int,
    progressive: bool,
    codes: NDArray[np.uint16],
    nonzero: NDArray[np.uint64],
) -> tuple[int, int]:
    one = np.uint64(1)
    at, bits, count = start, np.uint64(0), 0
    end_run, until_restart, expected = 0, restart, 0
    parts = layout.shape[0]
    for mcu in range(mcus_wide * mcus_high):
        if restart and until_restart == 0:
            if count >= 8:
                return BAD_RESTART, at
            bits, count = np.uint64(0), 0
            while at + 1 < data.shape[0] and data[at] == 0xFF and data[at + 1] == 0xFF:
                at += 1
            if at + 1 >= data.shape[0] or data[at] != 0xFF or data[at + 1] != 0xD0 + expected:
                return BAD_RESTART, at
            at += 2
            expected = (expected + 1) & 7
            end_run, until_restart = 0, restart
        until_restart -= 1
        for part in range(parts):
            wide, tall = layout[part, 0], layout[part, 1]
            for block in range(wide * tall):
                if parts == 1:
                    row, column = mcu // mcus_wide, mcu % mcus_wide
                else:
                    row = mcu // mcus_wide * tall + block // wide
                    column = mcu % mcus_wide * wide + block % wide
                place = layout[part, 4] + row * layout[part, 5] + column
                k = first
                if first == 0:
                    if count < 32:
                        at, bits, count = _fill(data, at, bits, count)
                    if high == 0:
                        code = codes[layout[part, 2], _next_16(bits, count)]
                        if code == 0:
                            return (BAD_CODE if count >= 16 else TOO_SHORT), at
                        used, size = code >> 8, code & 255
                    else:
                        used, size = 0, 1
                    count -= used + size
                    if count < 0:
                        return TOO_SHORT, at
                    if size > 16:
                        return BAD_CODE, at
                    k = 1
                if progressive and first == 0:
                    continue
                if end_run > 0 and high == 0:
                    end_run -= 1
                    continue
                history = nonzero[place]
                if end_run == 0:
                    while k <= last:
                        if count < 32:
                            at, bits, count = _fill(data, at, bits, count)
                        code = codes[layout[part, 3], _next_16(bits, count)]
                        if code == 0:
                            return (BAD_CODE if count >= 16 else TOO_SHORT), at
                        count -= code >> 8
                        run, size = (code & 255) >> 4, code & 15
                        if size == 0 and run < 15:
                            if not progressive:
                                break
                            if count < run:
                                at, bits, count = _fill(data, at, bits, count)
                                if count < run:
                                    return TOO_SHORT, at
                            extra = (bits >> np.uint64(count - run)) & ((one << np.uint64(run)) - one)
                            count -= run
                            end_run = (1 << run) + np.int64(extra)
                            break
                        if high:
                            if size > 1:
                                return BAD_CODE, at
                            count -= size
                            if count < 0:
                                return TOO_SHORT, at
                            while k <= last:
                                if (history >> np.uint64(k)) & one:
                                    if count < 1:
                                        at, bits, count = _fill(data, at, bits, count)
                                    count -= 1
                                    if count < 0:
                                        return TOO_SHORT, at
                                else:
                                    run -= 1
                                    if run < 0:
                                        break
                                k += 1
                            if size:
                                if k > last:
                                    return BAD_CODE, at
                                history |= one << np.uint64(k)
                            k += 1
                            continue
                        k += run
                        if size:
                            if k > last:
                                return BAD_CODE, at
                            count -= size
                            if count < 0:
                                return TOO_SHORT, at
                            history |= one << np.uint64(k)
                        k += 1
                    if count < 0:
                        return TOO_SHORT, at
                if progressive and end_run > 0:
                    if high:
                        while k <= last:
                            if (history >> np.uint64(k)) & one:
                                if count < 1:
                                    at, bits, count = _fill(data, at, bits, count)
                                count -= 1
                                if count < 0:
                                    return TOO_SHORT, at
                            k += 1
                    end_run -= 1
                if progressive:
                    nonzero[place] = history
    return WHOLE, at - count // 8
