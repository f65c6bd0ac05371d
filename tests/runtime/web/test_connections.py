"""Connections that never finish: they are cut, and meanwhile keep nobody out."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from raw_http import OK, App, received, request, until

from maskrt.runtime.web import connections
from maskrt.runtime.web.connections import BACKLOG, MOST_CONNECTIONS, most_connections

Connect = Callable[[bytes], socket.socket]
UNFINISHED = {
    "silent": b"",
    "head": b"POST / HTTP/1.1\r\nHost: a\r\nX-",
    "body": request(b"x" * 1000)[:-999],
    "body without token": request(b"x" * 1000, token="no")[:-999],
}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are looked at every 50 ms."""
    monkeypatch.setattr(connections, "WINDOW_S", 0.05)


def answer(sock: socket.socket) -> bytes:
    return sock.recv(1 << 16)


@pytest.mark.parametrize("kind", UNFINISHED)
def test_others_are_answered_meanwhile(connect: Connect, kind: str) -> None:
    for _ in range(100):
        connect(UNFINISHED[kind])
    for _ in range(20):
        assert answer(connect(request())).startswith(OK)


@pytest.mark.parametrize("kind", UNFINISHED)
def test_what_is_never_finished_is_cut(connect: Connect, soon: None, kind: str) -> None:
    said = received(connect(UNFINISHED[kind]))
    assert said.startswith(b"HTTP/1.1 401") if kind == "body without token" else said == b""


@pytest.mark.parametrize("kind", UNFINISHED)
def test_one_byte_at_a_time_does_not_help(connect: Connect, soon: None, kind: str) -> None:
    sock, cut = connect(UNFINISHED[kind]), threading.Event()

    def trickle() -> None:
        try:
            while not cut.wait(0.01):
                sock.sendall(b"a")
        except OSError:
            pass

    thread = threading.Thread(target=trickle)
    thread.start()
    received(sock)  # returns, since the server closes
    cut.set()
    thread.join()


def test_a_body_that_goes_on_is_waited_for(server: Any, app: App, connect: Connect) -> None:
    sock = connect(request(b"x" * 90_000, "Connection: close")[:-90_000])
    assert app.begun.acquire(timeout=60)
    (connection,) = server.server_state.connections

    def look() -> None:
        looked = threading.Event()
        connection.loop.call_soon_threadsafe(connection._look)
        connection.loop.call_soon_threadsafe(looked.set)
        assert looked.wait(60)

    look()
    for _ in range(8):
        sock.sendall(b"x" * connections.LEAST_BYTES)
        until(lambda: connection._received >= connections.LEAST_BYTES)
        look()
        assert not connection.is_cut
    sock.sendall(b"x" * 9_000)
    until(lambda: connection._received >= 9_000)
    look()  # less than what has to come
    assert connection.is_cut


def test_an_answer_that_nobody_reads_is_cut(server: Any, app: App, connect: Connect, soon: None) -> None:
    sock = connect(request(b"x" * 1_000_000, "Times: 30", "Connection: close"))
    assert app.begun.acquire(timeout=60)
    until(lambda: not server.server_state.connections)
    assert len(received(sock)) < 30_000_000


def test_an_answer_that_is_read_arrives_whole(connect: Connect) -> None:
    sock = connect(request(b"x" * 1_000_000, "Times: 30", "Connection: close"))
    assert received(sock).endswith(b"x" * 1_000_000)


def test_of_too_many_the_oldest_that_nobody_answers_makes_room(
    app: App, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 8)
    sending = connect(UNFINISHED["body"])
    assert app.begun.acquire(timeout=60)
    silent = [connect(b"") for _ in range(30)]
    assert answer(connect(request())).startswith(OK)
    for sock in silent[:22]:
        assert received(sock) == b""
    sending.sendall(b"x" * 999)  # older than all of them, but it has the token
    assert answer(sending).startswith(OK)


def test_the_server_goes_on_after_thousands(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 16)
    for at in range(500):
        connect(list(UNFINISHED.values())[at % 4])
    assert answer(connect(request())).startswith(OK)


def test_a_client_that_leaves_is_noticed(app: App, connect: Connect) -> None:
    connect(UNFINISHED["body"]).close()
    assert app.gone.acquire(timeout=60)


def test_an_end_with_open_connections(app: App, server: Any, connect: Connect) -> None:
    socks = [connect(data) for data in UNFINISHED.values() for _ in range(5)]
    for _ in range(5):
        assert app.begun.acquire(timeout=60)
    server.should_exit = True
    assert [received(sock)[:12] for sock in socks] == [b""] * 15 + [b"HTTP/1.1 401"] * 5


@pytest.mark.parametrize(
    ("files", "expected"), [(1024, MOST_CONNECTIONS), (BACKLOG * 4 + 100, 100), (64, 32), (-1, MOST_CONNECTIONS)]
)
def test_the_limit_of_open_files(files: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert most_connections() == expected


@pytest.mark.parametrize(
    "data",
    [
        b"GET",
        b"GET / HTTP/1.1",
        b"\xff\xfe",
        b"GET / HTTP/9",
        b"GET /\x1b HTTP/1.1",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip",
    ],
)
def test_what_is_no_http(connect: Connect, capfd: pytest.CaptureFixture[str], data: bytes) -> None:
    assert received(connect(data + b"\r\n\r\n")).startswith(b"HTTP/1.1 400")
    assert answer(connect(request())).startswith(OK)
    assert capfd.readouterr().err == ""


def test_a_head_without_end(connect: Connect) -> None:
    sock = connect(b"GET / HTTP/1.1\r\nHost: a\r\n")
    try:
        while True:
            sock.sendall(b"X-A: " + b"a" * 1000 + b"\r\n")
    except OSError:
        pass  # the server has closed, after 16 kB
    assert answer(connect(request())).startswith(OK)
