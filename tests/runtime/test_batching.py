"""Errors of one among several, halves where memory is short, groups of one size."""

import numpy as np
import pytest

from maskrt.runtime.batching import attempt, groups, in_halves, unwrap
from maskrt.runtime.errors import InputError, MaskrtError, NotFinite, OutOfMemory
from maskrt.runtime.timing import timed_together


class Fitting:
    """Adds one to what it gets, `most` at a time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[int] = []

    def __call__(self, items):
        self.asked.append(len(items))
        if len(items) > self.most:
            raise OutOfMemory(f"no memory for {len(items)}")
        return [item + 1 for item in items]


@pytest.mark.parametrize(
    ("count", "most", "asked"), [(6, 6, [6]), (6, 3, [6, 3, 3]), (5, 3, [5, 2, 3]), (2, 1, [2, 1, 1]), (0, 1, [0])]
)
def test_halves(count: int, most: int, asked: list[int]) -> None:
    for items in (list(range(count)), np.arange(count)):
        work = Fitting(most)
        assert [value for part in in_halves(work, items) for value in part] == list(range(1, count + 1))
        assert work.asked == asked


@pytest.mark.parametrize(("count", "most", "asked"), [(6, 2, [6, 3]), (1, 0, [1])])
def test_a_batch_is_halved_once(count: int, most: int, asked: list[int]) -> None:
    work = Fitting(most)
    with pytest.raises(OutOfMemory, match=f"no memory for {asked[-1]}"):
        in_halves(work, list(range(count)))
    assert work.asked == asked


def test_only_a_frames_own_errors_are_values() -> None:
    def fail(error: Exception):
        raise error

    assert attempt(lambda: 3) == 3
    for error in (InputError("roi"), NotFinite("nan"), OutOfMemory("full")):
        assert attempt(lambda: fail(error)) is error  # noqa: B023
        with pytest.raises(type(error)):
            unwrap(error)
    for other in (MaskrtError("the disk is full"), KeyError("bug")):
        with pytest.raises(type(other)):
            attempt(lambda: fail(other))  # noqa: B023
    assert unwrap([1]) == [1]


def test_groups() -> None:
    assert groups([(2, 3), (1, 1), (2, 3), (3, 2)]) == [[0, 2], [1], [3]]
    assert groups([]) == []


def test_time_spent_together_is_shared() -> None:
    timings_ms = [{"encoder": 5.0}, {}]
    with timed_together(timings_ms, "encoder"):
        sum(range(10_000))
    assert timings_ms[1]["encoder"] > 0
    assert timings_ms[0]["encoder"] == 5.0 + timings_ms[1]["encoder"]
