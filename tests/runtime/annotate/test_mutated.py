"""Requests that are wrong somewhere, and those of other sites: refused with a sentence, and the desk goes on."""

import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from mutated import VALUES, mutated
from raw_http import received, running
from starlette.testclient import TestClient

from maskrt.runtime.annotate.app import make_app
from maskrt.runtime.annotate.desk import MOST_PROMPTS, Desk

TOKEN = "a-Secret_1"
AT = f"http://127.0.0.1:8000/{TOKEN}"
COUNT = 150
ACTIONS: list[dict[str, Any]] = [
    {"kind": "click", "x": 30, "y": 20, "positive": True},
    {"kind": "box", "x0": 1, "y0": 2, "x1": 30, "y1": 40},
    {"kind": "show", "index": 0},
    {"kind": "choose", "name": "mattress"},
    {"kind": "delete", "id": 1},
    {"kind": "reset"},
]


@pytest.fixture
def client(desk: Desk) -> Iterator[TestClient]:
    with TestClient(make_app(desk, TOKEN), base_url=AT, raise_server_exceptions=False) as client:
        client.headers["Content-Type"] = "application/json"
        yield client


def turn(client: TestClient) -> int:
    return int(client.get(f"{AT}/state").json()["state"]["turn"])


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action["kind"])
def test_bodies(client: TestClient, action: dict[str, Any]) -> None:
    rng = np.random.default_rng(len(action["kind"]))
    statuses = set()
    for _ in range(COUNT):
        body = mutated({"turn": turn(client), "do": action}, rng)
        answer = client.post(f"{AT}/act", content=body)
        assert answer.status_code in (200, 400, 409, 413), (body[:300], answer.text)
        if answer.status_code in (400, 409):
            assert answer.json()["error"].count(" ") >= 3
        statuses.add(answer.status_code)
    assert 400 in statuses
    client.post(f"{AT}/act", json={"turn": turn(client), "do": {"kind": "reset"}})
    answer = client.post(f"{AT}/act", json={"turn": turn(client), "do": ACTIONS[0]})
    assert (answer.status_code, answer.json()["state"]["clicks"]) == (200, [[30, 20, 1]])


@pytest.mark.parametrize("value", [value for value in VALUES if len(value) < 4000 and value not in ("0", "-1", "1.5")])
@pytest.mark.parametrize("place", ["turn", "index", "id", "x", "x1"])
def test_every_odd_value_as_a_number(client: TestClient, place: str, value: str) -> None:
    kinds = {"index": "show", "id": "delete", "x": "click", "x1": "box"}
    rest = {"x": '"y": 1', "x1": '"x0": 1, "y0": 1, "y1": 9'}.get(place)
    do = (
        f'"kind": "{kinds[place]}", {rest + ", " if rest else ""}"{place}": {value}'
        if place in kinds
        else '"kind": "undo"'
    )
    body = f'{{"turn": {value if place == "turn" else 0}, "do": {{{do}}}}}'.encode("utf-8", "surrogatepass")
    answer = client.post(f"{AT}/act", content=body)
    assert answer.status_code == 400
    assert "reload the page" in answer.json()["error"]


@pytest.mark.parametrize(
    "index", ["9" * 5000, "9" * 10, "-1", "1.0", "1e3", "٣", "²", "0x1", " 1", "1_0", "%00", "NaN", "", "true"]
)
def test_numbers_of_pictures(client: TestClient, index: str) -> None:
    answer = client.get(f"{AT}/picture/{index}")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/plain")
    assert client.get(f"{AT}/picture/999999999").status_code == 409
    assert client.get(f"{AT}/picture/0").status_code == 200


@pytest.mark.parametrize(
    "target", ["*", "a", "a:1", "http://127.0.0.1/state", "//", "/", f"/{TOKEN[:-1]}", f"{TOKEN}/state"]
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "CONNECT", "POST"])
def test_raw_targets(desk: Desk, capfd: pytest.CaptureFixture[str], method: str, target: str) -> None:
    with running(make_app(desk, TOKEN)) as server:
        for path, statuses in ((target, (b"400", b"404")), (f"/{TOKEN}/state", (b"200", b"403", b"405", b"415"))):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
                sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                assert received(sock).split(b" ", 2)[1] in statuses
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 400),
        ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_pages_of_other_sites(client: TestClient, desk: Desk, headers: dict[str, str], status: int) -> None:
    body = {"turn": 0, "do": ACTIONS[0]}
    assert client.post(f"{AT}/act", json=body, headers=headers).status_code == status
    assert len(desk.state().clicks) == (status == 200)
    if status == 403:
        for path in ("", "state", "picture/0", "page.js"):
            assert client.get(f"{AT}/{path}", headers=headers).status_code == 403
        # Without the secret they do not even learn that something is here.
        assert client.get("http://127.0.0.1:8000/other/state", headers=headers).status_code == 404


def test_prompts_of_an_object(client: TestClient) -> None:
    for at in range(MOST_PROMPTS):
        assert client.post(f"{AT}/act", json={"turn": at, "do": ACTIONS[at % 2]}).status_code == 200
    for action in ACTIONS[:2]:
        answer = client.post(f"{AT}/act", json={"turn": turn(client), "do": action})
        assert answer.status_code == 400
        assert answer.json()["error"] == "the object has 100 clicks and boxes already: accept it, or reset it"
    assert client.post(f"{AT}/act", json={"turn": turn(client), "do": {"kind": "accept"}}).status_code == 200


def test_a_defect_is_shown_on_the_page(client: TestClient, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise IndexError("list index")

    monkeypatch.setattr(desk, "act", broken)
    monkeypatch.setattr(desk, "picture", broken)
    answer = client.post(f"{AT}/act", json={"turn": 0, "do": ACTIONS[0]})
    assert (answer.status_code, answer.json()["error"]) == (500, "unexpected IndexError: list index")
    answer = client.get(f"{AT}/picture/0")
    assert (answer.status_code, answer.text) == (500, "unexpected IndexError: list index\n")
