"""The server: what it answers, and to whom."""

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fake_annotator import FakeAnnotator
from starlette.testclient import TestClient

from maskrt.runtime.annotate.app import MAX_BODY, PAGE, make_app
from maskrt.runtime.annotate.desk import Desk
from maskrt.runtime.annotate.guard import new_token
from maskrt.runtime.annotate.server import listen
from maskrt.runtime.errors import InputError, NetworkError
from maskrt.runtime.rle import decode_rle
from maskrt.runtime.web.server import make_server

TOKEN = "a-Secret_1"
AT = f"http://127.0.0.1:8000/{TOKEN}"


@pytest.fixture
def client(desk: Desk) -> Iterator[TestClient]:
    with TestClient(make_app(desk, TOKEN), base_url=AT) as client:
        client.headers["Content-Type"] = "application/json"
        yield client


def act(client: TestClient, turn: int, **do: Any) -> Any:
    return client.post(f"{AT}/act", json={"turn": turn, "do": do})


def test_a_session_over_http(client: TestClient) -> None:
    state = client.get(f"{AT}/state").json()["state"]
    picture = client.get(f"{AT}/picture/0")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    answer = act(client, state["turn"], kind="click", x=30, y=20)
    assert answer.status_code == 200
    state = answer.json()["state"]
    assert decode_rle(state["mask"])[20, 30]
    assert answer.json()["error"] is None
    state = act(client, state["turn"], kind="accept").json()["state"]
    assert [found["number"] for found in state["objects"]] == [1]
    assert state["counters"]["accepted"] == 1


def test_errors_come_with_the_state(client: TestClient, session: FakeAnnotator) -> None:
    turn = client.get(f"{AT}/state").json()["state"]["turn"]
    for do, said in (
        ({"kind": "click", "x": 80, "y": 5}, "outside the image"),
        ({"kind": "accept"}, "click on an object first"),
        ({"kind": "show", "index": 7}, "no picture 8"),
    ):
        answer = act(client, turn, **do)
        assert (answer.status_code, said in answer.json()["error"]) == (400, True)
        turn = answer.json()["state"]["turn"]
    session.fail["click"] = NetworkError("decoder.onnx returned NaN")
    answer = act(client, turn, kind="click", x=5, y=5)
    assert (answer.status_code, answer.json()["error"]) == (500, "decoder.onnx returned NaN")


def test_two_browsers(client: TestClient, desk: Desk) -> None:
    with TestClient(make_app(desk, TOKEN), base_url=AT) as other:
        turn = other.get(f"{AT}/state").json()["state"]["turn"]
        assert act(client, turn, kind="click", x=30, y=20).status_code == 200
        behind = act(other, turn, kind="click", x=40, y=20)
        assert behind.status_code == 409
        assert behind.json()["state"]["clicks"] == [[30, 20, 1]]
        turn = behind.json()["state"]["turn"]
        assert act(other, turn, kind="show", index=2).status_code == 200
        assert client.get(f"{AT}/picture/0").status_code == 409
        assert act(client, turn, kind="accept").status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"turn": 0}',
        b'{"turn": "0", "do": {"kind": "undo"}}',
        b'{"turn": 0, "do": {"kind": "rm"}}',
        b'{"turn": 0, "do": {"kind": "click", "x": 1.5, "y": 2}}',
        b'{"turn": 0, "do": {"kind": "click", "x": NaN, "y": 2}}',
        b'{"turn": 0, "do": {"kind": "click", "x": 1, "y": 2, "z": 3}}',
        b'{"turn": 0, "do": {"kind": "show", "index": null}}',
        b"[" * 4000,
    ],
)
def test_requests_that_make_no_sense(client: TestClient, body: bytes) -> None:
    answer = client.post(f"{AT}/act", content=body)
    assert answer.status_code == 400
    assert "reload the page" in answer.json()["error"]
    assert answer.json()["state"]["turn"] == 0


def test_huge_bodies(client: TestClient) -> None:
    assert client.post(f"{AT}/act", content=b" " * (MAX_BODY + 1)).status_code == 413
    assert client.post(f"{AT}/act", content=iter([b" " * 1000] * 10)).status_code == 413
    body = json.dumps({"turn": 0, "do": {"kind": "undo"}}).encode()
    assert client.post(f"{AT}/act", content=body.ljust(MAX_BODY)).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/state", "/a-secret_1/", "/a-Secret_/state", "/a-Secret_12/state", "//state", "/ü/state", "/favicon.ico"],
)
def test_without_the_token_there_is_nothing(client: TestClient, path: str) -> None:
    for answer in (
        client.get(f"http://127.0.0.1:8000{path}"),
        client.post(f"http://127.0.0.1:8000{path}", content=b"x"),
    ):
        assert (answer.status_code, answer.text) == (404, "Not Found")


@pytest.mark.parametrize(
    "path", ["desk.py", "../desk.py", "..%2fdesk.py", "%2e%2e/page.py", "page.html", "picture/x", "a/b"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(f"{AT}/{path}").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "192.168.0.1", ""])
def test_other_hosts_are_refused(client: TestClient, host: str) -> None:
    assert client.get(f"{AT}/state", headers={"host": host}).status_code == 400
    assert client.get(f"{AT}/state", headers={"host": "localhost:1234"}).status_code == 200


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    for name, (_, kind) in PAGE.items():
        answer = client.get(f"{AT}/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "http://" not in answer.text
        assert "https://" not in answer.text
    missing = client.get("http://127.0.0.1:8000/")
    for answer in (client.get(f"{AT}/state"), missing, client.get(f"{AT}/", headers={"host": "evil.example"})):
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_tokens_differ() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 32


def test_a_taken_port() -> None:
    with listen(0) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"
        port = sock.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port}: .*: choose another"):
            listen(port)
    with pytest.raises(InputError, match="--port 70000"):
        listen(70000)


def test_a_slow_click_does_not_keep_the_page_waiting(desk: Desk, session: FakeAnnotator) -> None:
    app, clicking, go_on = make_app(desk, TOKEN), threading.Event(), threading.Event()
    with listen(0) as sock:
        server = make_server(app)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
        thread.start()
        port = sock.getsockname()[1]

        def ask(method: str, path: str, body: str | None = None) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request(method, f"/{TOKEN}/{path}", body, {"Content-Type": "application/json"})
            status = connection.getresponse().status
            connection.close()
            return status

        try:
            assert ask("GET", "state") == 200
            session.before = lambda: (clicking.set(), go_on.wait(60))  # type: ignore[func-returns-value]
            body = json.dumps({"turn": 0, "do": {"kind": "click", "x": 5, "y": 5}})
            statuses: list[int] = []
            click = threading.Thread(target=lambda: statuses.append(ask("POST", "act", body)))
            click.start()
            assert clicking.wait(60)
            assert ask("GET", "page.js") == 200
            go_on.set()
            click.join()
            assert statuses == [200]
        finally:
            go_on.set()
            server.should_exit = True
            thread.join()
