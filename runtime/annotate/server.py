"""The socket, and the server that answers on it until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from maskrt.runtime.errors import InputError
from maskrt.runtime.web.server import make_server, stopped_by_signals

if TYPE_CHECKING:
    from starlette.applications import Starlette

HOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """Open a socket that only this machine reaches.

    Args:
        port: 0 for any free port.

    Raises:
        InputError: the port is taken, or may not be used.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--port {port}: {reason}: choose another, or 0 for any free port") from error


def serve(app: Starlette, sock: socket.socket, begin: Callable[[], None], finish: Callable[[], None]) -> None:
    """Answer on a socket until Ctrl-C or SIGTERM; for the main thread.

    Args:
        begin: called when a signal can only end the server in an orderly way; it prints the address.
        finish: called at the end, whatever happened; it saves the decoders, and no signal interrupts it.
    """
    server = make_server(app)
    with stopped_by_signals(server):
        try:
            begin()
            server.run(sockets=[sock])
        finally:
            finish()
