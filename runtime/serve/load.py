"""What all requests together may take, and how many lines about failures are shown."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maskrt.runtime.web.refused import Refused

MOST_REQUESTS = 16  # that have arrived whole, and wait for their turn
MOST_BODIES = 4  # of the largest size, in memory at the same time
MOST_LINES, LINES_S = 30, 60.0


class Load:
    """The load of a server by those with the token; what would go past a limit gets 503."""

    def __init__(self, max_bytes: int) -> None:
        self._most_bytes = MOST_BODIES * max_bytes
        self._bytes = self._requests = 0

    @contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Count the bytes that the function takes, until the end of the `with` block.

        Slow requests count with no more than what has come of them, so that they do not take the place of others.
        """
        held = 0

        def take(count: int) -> None:
            nonlocal held
            if self._bytes + count > self._most_bytes:
                raise _busy()
            self._bytes += count
            held += count

        try:
            yield take
        finally:
            self._bytes -= held

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request that has arrived, until the end of the `with` block."""
        if self._requests >= MOST_REQUESTS:
            raise _busy()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1


class FailureLines:
    """Passes lines on, up to MOST_LINES in LINES_S.

    Whoever connects can cause them without the token; they could fill a disk, or a pipe that nobody empties, which
    stops the server.
    """

    def __init__(self, tell: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._now = tell, now
        self._since, self._count = now(), 0

    def __call__(self, line: str) -> None:
        """Pass a line on, or leave it out."""
        if self._now() - self._since > LINES_S:
            self._since, self._count = self._now(), 0
        self._count += 1
        if self._count < MOST_LINES:
            self._tell(line)
        elif self._count == MOST_LINES:
            self._tell(f"more failed requests are not shown for {LINES_S:.0f} s")


def _busy() -> Refused:
    return Refused(503, "BUSY", "this server is busy with other requests: try again in a moment")
