"""The compiled walk over a JPEG's scan gives the plain one's verdict, on whole and on damaged data."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrt.kernels.jpeg_scan import cpu, reference
from maskrt.kernels.jpeg_scan.types import TOO_SHORT, WHOLE, Scan
from maskrt.runtime.io import jpeg
from maskrt.runtime.io.structure import Damaged

Call = tuple[np.ndarray, int, Scan, np.ndarray]


def calls_of(data: bytes, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The arguments of every walk that a check of the file makes."""
    found: list[Call] = []

    def walk(values: np.ndarray, start: int, scan: Scan, nonzero: np.ndarray) -> tuple[int, int]:
        found.append((values, start, scan, nonzero.copy()))
        return cpu.walk_scan(values, start, scan, nonzero)

    monkeypatch.setattr(jpeg, "walk_scan", walk)
    jpeg.check_jpeg(data)
    return found


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"optimize": True, "subsampling": 1}, {"restart_marker_blocks": 2}]
)
def test_verdicts_are_equal(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    pixels = rng.normal(128, 40, (40, 56, 3)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    verdicts = set()
    for values, start, scan, nonzero in calls_of(buffer.getvalue(), monkeypatch):
        for trial in range(24):
            damaged = values.copy()
            if trial % 4 == 1:
                damaged[start + int(rng.integers(40))] ^= 1 << int(rng.integers(8))
            elif trial % 4 == 2:
                at = start + int(rng.integers(60))
                damaged[at : at + 30] = rng.integers(0, 256, len(damaged[at : at + 30]))
            elif trial % 4 == 3:
                at = start + int(rng.integers(20))
                damaged[at : at + 2] = 0xFF, 0xD9
            plain, fast = nonzero.copy(), nonzero.copy()
            expected = reference.walk_scan(damaged, start, scan, plain)
            found = cpu.walk_scan(damaged, start, scan, fast)
            assert found[0] == expected[0]
            verdicts.add(found[0])
            if found[0] == WHOLE:
                assert np.array_equal(fast, plain)
                at, ends = found[1], expected[1]
                assert (damaged[at] == 0xFF and damaged[at + 1] != 0) == (
                    damaged[ends] == 0xFF and damaged[ends + 1] != 0
                )
    assert {WHOLE, TOO_SHORT} <= verdicts


def test_a_table_whose_codes_run_over_is_refused() -> None:
    with pytest.raises(Damaged, match="table"):
        jpeg._tables(bytes([0, 3, *[0] * 15, 1, 2, 3]), np.zeros((8, 1 << 16), np.uint16))
