"""Limits of all requests together, and of the lines about failures."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maskrt.runtime.web.refused import Refused

MOST_BODIES = 4  # of the largest size, in memory at the same time
MOST_LINES, LINES_S = 30, 60.0


class Load:
    """The bodies of all requests in memory; one that would go past the limit gets 503.

    Their number needs no limit: those that have arrived take turns, and the slow ones hold no more than what has come.
    """

    def __init__(self, max_bytes: int) -> None:
        self._most = MOST_BODIES * max_bytes
        self._bytes = 0

    @contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Count the bytes that the function is called with, until the end of the `with` block."""
        held = 0

        def take(count: int) -> None:
            nonlocal held
            if self._bytes + count > self._most:
                raise Refused(503, "BUSY", "this server is busy with other requests: try again in a moment")
            self._bytes += count
            held += count

        try:
            yield take
        finally:
            self._bytes -= held


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
