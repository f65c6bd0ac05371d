"""Requests as an attacker's tool makes them: of a valid JSON body, one that is wrong somewhere."""

import json
from typing import Any

import numpy as np

# Written as they are, whatever JSON says about them.
VALUES = (
    *("null", "true", "false", '""', "[]", "{}", "[[]]", "NaN", "Infinity", "-Infinity", "-1", "0", "1.5", "1e308"),
    *(
        "-1e308",
        "1e400",
        "2147483648",
        "-9223372036854775809",
        "9" * 30,
        "9" * 500,
        "9" * 5000,
        "0." + "1" * 5000,
        "1e-400",
    ),
    *(
        '"\\ud800"',
        '"\\u0000"',
        '"\\u001b[31m"',
        '"../../etc/passwd"',
        '"' + "a" * 10_000 + '"',
        '"é\U0001f600"',
        "[" * 2000,
    ),
    *(
        "[" * 900 + "]" * 900,
        '{"a":' * 500 + "1" + "}" * 500,
        "[1,2,3,4,5,6]",
        '["a", 1, null]',
        '{"type": "point"}',
        '"1"',
    ),
)
MARK = "@@here@@"


def mutated(body: Any, rng: np.random.Generator) -> bytes:
    """One of: a value replaced, a field left out, renamed or doubled, bytes changed, cut off, or put in."""
    if rng.random() < 0.6:
        return _with_value(body, rng)
    data = bytearray(json.dumps(body).encode())
    at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 20))
    match int(rng.integers(0, 5)):
        case 0:
            data[at] ^= 1 << int(rng.integers(0, 8))
        case 1:
            del data[at : at + length]
        case 2:
            data[at:at] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        case 3:
            del data[at:]
        case _:
            data[at:at] = data[at : at + length]
    return bytes(data)


def _with_value(body: Any, rng: np.random.Generator) -> bytes:
    copy = json.loads(json.dumps(body))
    places: list[tuple[Any, Any]] = []
    _collect(copy, places)
    holder, key = places[int(rng.integers(0, len(places)))]
    value = VALUES[int(rng.integers(0, len(VALUES)))]
    if isinstance(holder, dict) and rng.random() < 0.2:
        holder[str(key) + "x"] = holder.pop(key)
        return json.dumps(copy).encode()
    if isinstance(holder, list) and rng.random() < 0.3:
        holder.extend([holder[key]] * int(rng.integers(1, 200)))
        return json.dumps(copy).encode()
    holder[key] = MARK
    return json.dumps(copy).replace(f'"{MARK}"', value).encode("utf-8", "surrogatepass")


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, within in inner:
        places.append((value, key))
        _collect(within, places)
