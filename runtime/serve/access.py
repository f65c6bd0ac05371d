"""Access control: a request needs the token, or, without one, must come from this machine."""

import base64
import binascii
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping

from maskrt.runtime.errors import InputError
from maskrt.runtime.web.refused import Refused

NONE = "none"


def token_for(asked: str | None, host: str) -> str | None:
    """Return the token that requests need: the given one, a random one if none is given, or None for "none".

    Raises:
        InputError: "none" is given with a host that others can reach, or the token is empty.
    """
    if asked is None:
        return secrets.token_urlsafe(18)
    if asked != NONE:
        if not asked.strip() or asked != asked.strip():
            raise InputError("--token is empty, or begins or ends with a space: leave it out for a random one")
        return asked
    if not is_loopback(host):
        raise InputError(f"--token none with --host {host}: others could use this server; leave one of the two out")
    return None


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_page(headers: Mapping[str, str], method: str) -> None:
    """Refuse what a web page of another site makes a browser send.

    Raises:
        Refused: 403, the request comes from another site; 415, it is a POST without JSON, which any page could send.
    """
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and origin.partition("://")[2] != host:
        raise Refused(403, "FORBIDDEN", "a page of another site may not ask this server")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Refused(403, "FORBIDDEN", "a page of another site may not ask this server")
    if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "NOT_JSON", "send JSON with the header Content-Type: application/json")


def check_access(headers: Mapping[str, str], token: str | None) -> None:
    """Check that a request's header Token, or its password of Basic authorization, is the token.

    Raises:
        Refused: 401, it is not.
    """
    if token is None:
        # A web page can make its own name resolve to this machine, but its requests then send that name as the host.
        if not is_loopback(_name_of(headers.get("host", ""))):
            raise Refused(401, "UNAUTHORIZED", "without a token this server answers to localhost only")
        return
    given = headers.get("token") or _password(headers.get("authorization", ""))
    if not hmac.compare_digest(given.encode(), token.encode()):
        raise Refused(401, "UNAUTHORIZED", "the token is missing or wrong: maskrt serve prints it at the start")


def _name_of(host: str) -> str:
    """Return the name or the address in a header Host, without port and brackets; empty if it is malformed."""
    found = re.fullmatch(r"(?:\[([0-9a-f:]+)\]|([0-9a-z.-]+))(?::[0-9]{1,5})?", host.lower())
    return "" if found is None else found[1] or found[2]


def _password(authorization: str) -> str:
    """Return the password of Basic authorization; empty if there is none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
