"""The refusals of requests that cannot be answered, and the decoding of those that may be."""

from typing import TypeVar

import msgspec

from maskrt.runtime.web.refused import Refused

MOST_FIELDS = 200_000  # of a body; each takes up to 200 bytes of memory
T = TypeVar("T")


def invalid_request(message: str) -> Refused:
    """Return the refusal of a request that cannot be understood, or asks for something that does not exist."""
    return Refused(400, "INVALID_REQUEST", message)


def invalid_image(message: str) -> Refused:
    """Return the refusal of a request whose picture cannot be used."""
    return Refused(400, "INVALID_IMAGE", message)


def decoded(body: bytes | msgspec.Raw, kind: type[T], place: str = "$", most_bytes: int | None = None) -> T:
    """Decode JSON.

    Args:
        place: where in the request the JSON is, for errors.
        most_bytes: the limit of a part that holds no picture.

    Raises:
        Refused: it is too large, malformed, nested too deeply, or not of this kind.
    """
    if most_bytes is not None and (size := len(memoryview(body))) > most_bytes:
        raise invalid_request(f"the request has {size} bytes at `{place}`: at most {most_bytes} are taken")
    if isinstance(body, bytes) and (fields := body.count(b":")) > MOST_FIELDS:
        raise invalid_request(f"the request has {fields} fields: at most {MOST_FIELDS} are taken")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = str(error).replace("`$", f"`{place}")
        raise invalid_request(f"the request cannot be read: {said}") from error
