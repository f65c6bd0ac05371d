"""Label Studio's brush format: the run lengths of an RGBA picture, packed into bits.

The bits come high bit first: 32 bits hold the number of values; 5 bits the size of a value in bits, less 1; 4 x 4 bits
the sizes of the four kinds of run length in bits, each less 1; then come the runs. A run is a bit 1, 2 bits with the
kind of its length, the length less 1, and the value. (A bit 0 would begin a run of differing values; a mask has none,
since its shortest run is a pixel of four equal values.) Zeros fill the last byte.
"""

import numpy as np
from numpy.typing import NDArray

VALUE_BITS = 8
LENGTH_BITS = np.array([3, 4, 8, 16])
LONGEST = 1 << 16
RUNS_AT_A_TIME = 1 << 16  # bounds the memory: every bit takes 24 bytes during the packing
HEADER_BITS = 32 + 5 + 4 * 4


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a mask as bytes of Label Studio's brush: 255 in all four channels where it is true, else 0.

    Args:
        mask: bool [H, W], of fewer than 2^30 pixels.

    Source: label_studio_converter/brush.py and thi.ng/rle-pack, whose decoders define the format.
    """
    lengths, values = _runs(mask.ravel())
    kinds = np.searchsorted(1 << LENGTH_BITS, lengths)
    widths = 1 + 2 + LENGTH_BITS[kinds] + VALUE_BITS
    codes = ((0b100 | kinds) << LENGTH_BITS[kinds] | lengths - 1) << VALUE_BITS | values
    header = mask.size * 4 << 5 | VALUE_BITS - 1
    for length_bits in LENGTH_BITS.tolist():
        header = header << 4 | length_bits - 1
    bits = [np.array([header >> HEADER_BITS - 1 - place & 1 for place in range(HEADER_BITS)], np.uint8)]
    for start in range(0, codes.size, RUNS_AT_A_TIME):
        part = slice(start, start + RUNS_AT_A_TIME)
        bits.append(_bits(codes[part], widths[part]))
    packed: list[int] = np.packbits(np.concatenate(bits)).tolist()
    return packed


def _runs(pixels: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lengths, of at most 2^16 values each, and the values of the runs of an RGBA picture."""
    starts = np.flatnonzero(np.diff(pixels, prepend=~pixels[:1]))
    lengths = 4 * np.diff(starts, append=pixels.size)
    pieces = -(-lengths // LONGEST)
    pieced = np.full(pieces.sum(), LONGEST)
    pieced[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * LONGEST
    return pieced, np.repeat(np.where(pixels[starts], 255, 0), pieces)


def _bits(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the low `widths` bits of each code, one code after the other."""
    place_after = np.repeat(np.cumsum(widths), widths)
    from_right = place_after - 1 - np.arange(place_after.size)
    return (np.repeat(codes, widths) >> from_right & 1).astype(np.uint8)
