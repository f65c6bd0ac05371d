"""A real server with an application of a few lines, and raw requests to it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from maskrt.runtime.web.server import make_server

OK = b"HTTP/1.1 200 OK"


class App:
    """Answers with the body, or 401 without reading it if the token is missing; counts those that went away."""

    def __init__(self) -> None:
        self.gone = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        if request.headers.get("token") != "t":
            await Response(b"", 401)(scope, receive, send)
            return
        self.begun.release()
        try:
            body = await request.body()
        except ClientDisconnect:
            self.gone.release()
            return
        await Response(body * int(request.headers.get("times", "1")))(scope, receive, send)


@contextmanager
def running(app: Any) -> Iterator[Any]:
    """The server, with its `port`, until the end of the `with` block."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server: Any = make_server(app)
        server.port = sock.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield server
        finally:
            server.should_exit = True
            thread.join(60)
        assert not thread.is_alive()


def request(body: bytes = b"x", *headers: str, token: str = "t") -> bytes:
    lines = ["POST / HTTP/1.1", "Host: a", f"Token: {token}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def received(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    data = b""
    try:
        while part := sock.recv(1 << 16):
            data += part
    except ConnectionResetError:
        pass
    return data


def until(happened: Callable[[], object]) -> None:
    """Wait for something that another thread does; a minute is too long."""
    for _ in range(60_000):
        if happened():
            return
        time.sleep(0.001)
    raise AssertionError("it has not happened")
