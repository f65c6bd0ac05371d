"""Checks that a request does not come from a web page of another site, which every browser would send for it."""

from collections.abc import Mapping

from maskrt.runtime.web.refused import Refused

JSON = "application/json"
OWN_SITE = ("same-origin", "none")  # none: a person typed the address


def check_sender(method: str, headers: Mapping[str, str]) -> None:
    """Check where a request comes from, and that its body is JSON.

    Annotation tools are no browsers: they send neither Origin nor Sec-Fetch-Site. A page of another site can send a
    form or plain text without asking this server first, but JSON only after a preflight, which gets no permission here.

    Args:
        headers: by lower-case name.

    Raises:
        Refused: 400, the length is given twice; 403, another site sent it; 415, the body is not JSON.
    """
    if "content-length" in headers and "transfer-encoding" in headers:
        raise Refused(400, "INVALID_REQUEST", "the request gives its length in two ways: send only Content-Length")
    if _is_foreign(headers) and not _opens_a_tab(method, headers):
        raise Refused(403, "FORBIDDEN", "a web page of another site sent this request: this server does not answer it")
    if method not in ("GET", "HEAD") and _media_type(headers) != JSON:
        raise Refused(415, "INVALID_REQUEST", f"the body is not JSON: send it with Content-Type: {JSON}")


def _is_foreign(headers: Mapping[str, str]) -> bool:
    host = headers.get("host", "").lower()
    origin = headers.get("origin", f"http://{host}").lower()
    return origin not in (f"http://{host}", f"https://{host}") or headers.get("sec-fetch-site", "none") not in OWN_SITE


def _opens_a_tab(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether a person follows a link to here, for example in a terminal in the browser."""
    opens = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return method == "GET" and opens and "origin" not in headers


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
