"""Limits of connections: slow ones are cut, and of too many the oldest that nobody answers makes room.

Nobody needs a token to connect. So a connection that has not yet sent the head of a request must not keep out one that
has, however many there are.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

# A connection is looked at this often. It is cut when it has not finished what it did the last time: a head at once, a
# body or an answer unless LEAST_BYTES have moved meanwhile. So a slow one lasts 10 to 20 s.
WINDOW_S = 10.0
LEAST_BYTES = 10_000
MOST_CONNECTIONS = 256
BACKLOG = 64  # connections that are accepted at a time
_OWN_FILES = 4 * BACKLOG  # open files that are not counted: of the process, and those just accepted or being closed
# What a connection does; one with a lower number makes room first.
IDLE, RECEIVING, ANSWERING = range(3)


def most_connections() -> int:
    """Return how many connections may be open, which the limit of open files can lower."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MOST_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(32, min(MOST_CONNECTIONS, files - _OWN_FILES))


@functools.cache
def limited_protocol() -> type[H11Protocol]:
    """Make the class of uvicorn's connections with these limits; uvicorn itself limits idle connections only."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class LimitedProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.since, self.is_cut = self.loop.time(), False
            self._received = self._unsent = 0
            self._last: tuple[int, bool, Any] = (IDLE, False, None)
            self._make_room()
            self._timer = self.loop.call_later(WINDOW_S, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._received += len(data)
            super().data_received(data)

        def shutdown(self) -> None:
            if self.stage == RECEIVING:  # the end does not wait for the rest
                self.cut()
            else:
                super().shutdown()

        @property
        def stage(self) -> int:
            """An application answers without the token at once, so one that reads or works has seen it."""
            cycle = self.cycle
            if cycle is None or cycle.response_complete or self.transport.get_write_buffer_size():
                return IDLE
            return RECEIVING if cycle.more_body else ANSWERING

        def cut(self) -> None:
            self.is_cut = True
            self.transport.abort()

        def _make_room(self) -> None:
            others = [other for other in self._all() if other is not self and not other.is_cut]
            if len(others) >= most_connections():
                min(others, key=lambda other: (other.stage, other.since)).cut()

        def _all(self) -> list[LimitedProtocol]:
            return cast("list[LimitedProtocol]", list(self.connections))

        def _look(self) -> None:
            unsent = self.transport.get_write_buffer_size()
            now = self.stage, unsent > 0, self.cycle
            moved = self._unsent - unsent if unsent else self._received if self.stage == RECEIVING else 0
            if now == self._last and self.stage != ANSWERING and moved < LEAST_BYTES:
                self.cut()
                return
            self._received, self._unsent, self._last = 0, unsent, now
            self._timer = self.loop.call_later(WINDOW_S, self._look)

    return LimitedProtocol
