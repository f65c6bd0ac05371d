"""The seal of bundle.json: a digest of its own bytes, so that no changed number or name goes unnoticed.

The file begins with the digest, the sha256 of the file with zeros in the digest's place. It protects from damage and
edits by hand, not from someone who writes a new digest: whoever may change the folder may change the models too.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

SEALED = 5  # the first schema with a digest
RESEAL = "a changed number in it would not be noticed; export the bundle again"
KEY = "digest"
BLANK = "0" * 64
_SEALED = re.compile(rb'\{\n  "digest": "([0-9a-f]{64})",\n')


def sealed(content: Mapping[str, Any]) -> bytes:
    """Return a bundle.json of this content, indented and with its digest; schemas before SEALED have none."""
    blank = {KEY: BLANK} if content["schema"] >= SEALED else {}
    whole = blank | {name: value for name, value in content.items() if name != KEY}
    text = msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"
    return text.replace(BLANK.encode(), hashlib.sha256(text).hexdigest().encode(), 1)


def is_sealed(data: bytes) -> bool:
    """Return whether the bytes are those that their own digest was made of."""
    found = _SEALED.match(data)
    if found is None:
        return False
    blank = data[: found.start(1)] + BLANK.encode() + data[found.end(1) :]
    return hashlib.sha256(blank).hexdigest().encode() == found[1]
