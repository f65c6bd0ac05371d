"""Text from outside, such as names of files, made safe for a terminal."""

import unicodedata

# Control characters, among them escape sequences and newlines; marks that reorder text; line separators; half of a
# UTF-16 pair, which stands for a byte of a name that is not UTF-8.
UNSAFE = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})


def printable(text: str) -> str:
    """Return one line in which every character that steers a terminal is written as an escape such as \\x1b."""
    if text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in UNSAFE else one for one in text)


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode()
