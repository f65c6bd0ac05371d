"""A server, and connections to it."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from raw_http import App, running


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def server(app: App) -> Iterator[Any]:
    with running(app) as server:
        yield server


@pytest.fixture
def connect(server: Any) -> Iterator[Callable[[bytes], socket.socket]]:
    """connect(data) -> a connection on which that was sent; it is closed in the end."""
    with ExitStack() as opened:

        def connected(data: bytes) -> socket.socket:
            sock = opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            sock.sendall(data)
            return sock

        yield connected
