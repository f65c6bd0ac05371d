"""The HTTP server of an application, and its end on Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from maskrt.runtime.web.connections import BACKLOG, limited_protocol

if TYPE_CHECKING:
    from types import FrameType

    import uvicorn
    from starlette.applications import Starlette

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MOST_WAITING = 1024  # connections that the system keeps until they are accepted
GRACE_S = 3  # for requests that are being answered when the server is stopped


def make_server(app: Starlette) -> uvicorn.Server:
    """Make the server of an application, not yet running; it leaves signals to `stopped_by_signals`."""
    import uvicorn

    class Server(uvicorn.Server):
        def capture_signals(self) -> contextlib.nullcontext[None]:  # type: ignore[override]
            return contextlib.nullcontext()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for sock in sockets or ():
                # asyncio takes as many connections at a time as may wait. More may wait here than it may take: where
                # there is no place, a client waits a second before it tries again.
                sock.listen(MOST_WAITING)

    # No log: of what an application does not report itself, uvicorn knows only malformed requests and slow ends, and
    # whoever connects could fill the log with them. The lines of its access log hold addresses and secret paths.
    return Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=limited_protocol(),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


@contextlib.contextmanager
def stopped_by_signals(server: uvicorn.Server) -> Iterator[list[int]]:
    """Let signals do no more than stop the server, from here to the end of the `with` block; for the main thread.

    Enter it before the address is printed: whoever reads it may send a signal at once.

    Yields:
        The signals that have come, in their order.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        server.force_exit = server.should_exit  # the second signal does not wait for answers
        server.should_exit = True
        came.append(number)

    former = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield came
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
