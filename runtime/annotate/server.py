"""The socket, and the server on it until somebody ends it."""

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
    """A socket of this machine alone.

    Args:
        port: 0 for any that is free.

    Raises:
        InputError: it is taken, or not ours to take.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--port {port}: {reason}: choose another, or 0 for any that is free") from error


def make_server(app: Starlette) -> uvicorn.Server:
    """The server of an application, not yet running."""
    import uvicorn

    # No access log: every line of it would hold the token.
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=5
    )
    return uvicorn.Server(config)


def serve(app: Starlette, sock: socket.socket) -> None:
    """Answer on a socket until Ctrl-C or SIGTERM; for the main thread."""
    # uvicorn ends, then raises the signal again, by which the process would die before the decoders are saved.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        make_server(app).run(sockets=[sock])
    except KeyboardInterrupt:
        pass  # the way to end it, and no interruption: what was accepted is on disk
    finally:
        signal.signal(signal.SIGTERM, previous)
