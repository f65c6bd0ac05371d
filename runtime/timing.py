"""Measurement of wall time per stage."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def timed(timings_ms: dict[str, float], stage: str) -> Iterator[None]:
    """Add the block's wall time in milliseconds to `timings_ms[stage]`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        timings_ms[stage] = timings_ms.get(stage, 0.0) + (time.perf_counter() - start) * 1e3


@contextmanager
def timed_together(timings_ms: Sequence[dict[str, float]], stage: str) -> Iterator[None]:
    """Add an equal share of the block's wall time to each frame's stage, for work on several frames at once."""
    together: dict[str, float] = {}
    try:
        with timed(together, stage):
            yield
    finally:
        for own_ms in timings_ms:
            own_ms[stage] = own_ms.get(stage, 0.0) + together[stage] / len(timings_ms)
