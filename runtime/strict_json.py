"""Reading of JSON that decides an answer: what two readers could understand in two ways is refused."""

import json
import math
from typing import Any


def strict_json(data: bytes) -> Any:
    """Return the value of JSON text in UTF-8.

    Raises:
        ValueError: it is no JSON, an object names a key twice, or a number is NaN or infinite.
    """
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_once, parse_constant=_refused, parse_float=_finite, parse_int=_short
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _refused(text: str) -> float:
    raise ValueError(f"it has the number {text}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it has the number {text}, which is infinite here")
    return value


def _short(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"it has a number of {len(text)} digits")
    return int(text)
