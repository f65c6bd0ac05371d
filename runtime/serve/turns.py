"""A lock that is taken in the order of asking, and the news that a client has gone."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Set by the server for each request; its event is set when the client closes the connection.
gone: ContextVar[threading.Event | None] = ContextVar("gone", default=None)


class Turns:
    """A lock for one thread at a time. Whoever has asked before gets it before: Python's own lock starves others."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn, and hand it on at the end of the block."""
        mine = threading.Event()
        with self._guard:
            self._queue.append(mine)
            if self._queue[0] is mine:
                mine.set()
        mine.wait()
        try:
            yield
        finally:
            with self._guard:
                self._queue.popleft()
                if self._queue:
                    self._queue[0].set()


def client_has_gone() -> bool:
    """Return whether nobody waits for the answer of this request any more."""
    event = gone.get()
    return event is not None and event.is_set()
