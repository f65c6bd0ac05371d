"""The socket, and the server that answers on it until it is stopped."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

from maskrt.runtime.errors import InputError

if TYPE_CHECKING:
    import uvicorn
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


def make_server(app: Starlette) -> uvicorn.Server:
    """Make the server of an application, not yet running."""
    import uvicorn

    # No access log: every line of it would hold the token.
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=5
    )
    return uvicorn.Server(config)


def serve(app: Starlette, sock: socket.socket) -> None:
    """Answer on a socket until Ctrl-C or SIGTERM; for the main thread."""
    # uvicorn stops, then raises the signal again, which would end the process before the decoders are saved.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        make_server(app).run(sockets=[sock])
    except KeyboardInterrupt:
        pass  # Ctrl-C is how a user ends it: accepted objects are on disk
    finally:
        signal.signal(signal.SIGTERM, previous)
