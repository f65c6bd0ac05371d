"""Who sends a request: tools do, and pages of this server, but no pages of other sites."""

import pytest

from maskrt.runtime.web.refused import Refused
from maskrt.runtime.web.sender import check_sender

JSON = {"host": "127.0.0.1:8000", "content-type": "application/json"}
TAB = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def status(method: str, **headers: str) -> int:
    """200, or the status of the refusal; `_` for `-` in names."""
    try:
        check_sender(method, JSON | {name.replace("_", "-"): value for name, value in headers.items()})
    except Refused as error:
        return error.status
    return 200


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_tools_and_own_pages(method: str) -> None:
    assert status(method) == 200
    assert status(method, origin="http://127.0.0.1:8000", sec_fetch_site="same-origin") == 200
    assert status(method, origin="https://127.0.0.1:8000") == 200  # behind a proxy
    assert status(method, sec_fetch_site="none") == 200


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "http://127.0.0.1"},
        {"origin": "file://"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
        {"origin": "http://127.0.0.1:8000", "sec_fetch_site": "cross-site"},
    ],
)
def test_other_sites(method: str, headers: dict[str, str]) -> None:
    assert status(method, **headers) == 403


def test_a_link_to_here_may_be_followed_but_no_form_sent() -> None:
    foreign = {"sec-fetch-site": "cross-site", **TAB}
    assert status("GET", **foreign) == 200
    assert status("POST", **foreign) == 403
    assert status("GET", **foreign, origin="http://evil.example") == 403


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON ;a=b"])
def test_json(kind: str) -> None:
    assert status("POST", content_type=kind) == 200


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "text/json",
        "text/plain; application/json",
        "application/jsonx",
        "application/json, text/plain",
    ],
)
def test_other_bodies_which_pages_may_send_unasked(kind: str) -> None:
    assert status("POST", content_type=kind) == 415
    assert status("GET", content_type=kind) == 200


def test_two_lengths() -> None:
    assert status("POST", content_length="3", transfer_encoding="chunked") == 400
