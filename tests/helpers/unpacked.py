"""Label Studio's brush format read one bit at a time, from its description, to compare an encoder with."""

import numpy as np
from numpy.typing import NDArray


def unpacked(packed: list[int]) -> NDArray[np.int64]:
    """The values of a picture's channels, int64 [H * W * 4]; what is left at the end must be less than a byte of 0."""
    bits = "".join(f"{byte:08b}" for byte in packed)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        assert place + count <= len(bits)
        place += count
        return int(bits[place - count : place], 2)

    wanted = take(32)
    value_bits = take(5) + 1
    length_bits = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < wanted:
        same = take(1)
        length = take(length_bits[take(2)]) + 1
        values += [take(value_bits)] * length if same else [take(value_bits) for _ in range(length)]
    assert len(values) == wanted
    assert len(bits) - place < 8
    assert set(bits[place:]) <= {"0"}
    return np.array(values)
