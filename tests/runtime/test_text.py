"""Names of files cannot steer the terminal."""

import pytest

from maskrt.runtime.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ward 3 Übung 測試.png", "ward 3 Übung 測試.png"),
        ("a\x1b[31m.png", "a\\x1b[31m.png"),
        ("a\nfailed: b.png", "a\\nfailed: b.png"),
        ("a\rb\tc", "a\\rb\\tc"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("a\u2028b", "a\\u2028b"),
        ("a\x9b31m", "a\\x9b31m"),
        ("a\udcff.png", "a\\udcff.png"),
        ("a\u00a0b", "a\u00a0b"),
    ],
)
def test_what_steers_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
