"""The HTTP protocol of the server, with an end to its patience: who sends slowly does not take others' places.

uvicorn has a limit for the pause between two requests, none for the time that one takes to arrive.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

ARRIVAL_S = 30.0  # from the first byte, or the connection, to the last byte of a request
MOST_WAITING = 256  # connections that have not sent a whole request; beyond, the one that waits longest is closed


def patient_protocol() -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with that limit; uvicorn is imported here, since it comes with an extra."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class PatientProtocol(H11Protocol):
        """One connection. `waiting` holds those whose request has not arrived whole, the oldest first."""

        waiting: ClassVar[dict[PatientProtocol, None]] = {}
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Start to wait for a request."""
            super().connection_made(transport)
            self._wait()
            if len(self.waiting) > MOST_WAITING:
                next(iter(self.waiting))._give_up()

        def data_received(self, data: bytes) -> None:
            """Stop to wait once the request is whole; a second one on the connection is waited for anew."""
            if self._deadline is None and self.conn.their_state is h11.IDLE:
                self._wait()
            super().data_received(data)

        def handle_events(self) -> None:
            """See data_received; uvicorn also calls it when more data came while it answered."""
            super().handle_events()
            if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
                self._arrived()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            self._arrived()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self.waiting[self] = None
            self._deadline = self.loop.call_later(ARRIVAL_S, self._give_up)

        def _arrived(self) -> None:
            self.waiting.pop(self, None)
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _give_up(self) -> None:
            self._arrived()
            transport: Any = self.transport
            transport.abort()  # close() would wait for a client that does not read

    return PatientProtocol
