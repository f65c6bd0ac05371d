"""Workers of the harness: what they measure, and what happens when they fail."""

import multiprocessing
import os
import pickle

import numpy as np
import pytest
from contestants import Endless, Failing, Timed

from maskrt.benchmarks.harness import measure
from maskrt.benchmarks.harness.measure import WorkerError, run_pairs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SETTLE_S", 0.0)


def test_rows_ratios_and_values() -> None:
    lines: list[str] = []
    measured = run_pairs({"ours": Timed(0.01), "peer": Timed(0.05, ballast_mb=200)}, 3, 1, lines.append)
    ours, peer = measured.rows
    assert (ours.name, peer.name, ours.runs, peer.runs) == ("ours", "peer", 3, 3)
    assert (ours.median_s, ours.p95_s, peer.median_s) == pytest.approx((0.01, 0.01, 0.05))
    assert ours.stages_ms == {"count": 3.0}  # calls 2, 3 and 4: the warm-up is not in it
    ratio = measured.ratios["peer"]
    assert list(measured.ratios) == ["peer"]
    assert (ratio.min, ratio.median, ratio.max) == pytest.approx((5, 5, 5))
    assert measured.values["ours"][1:] == (4, 0, False)
    assert len({os.getpid(), measured.values["ours"][0], measured.values["peer"][0]}) == 3
    assert peer.peak_rss_mb - ours.peak_rss_mb == pytest.approx(200, abs=40)
    assert sum(line.startswith("pair ") for line in lines) == 3


def test_a_team_is_as_slow_as_its_last_member() -> None:
    team = [Timed(0.01, ballast_mb=100), Timed(0.06, ballast_mb=100)]
    measured = run_pairs({"ours": Timed(0.01), "team": team, "team of one": team[:1]}, 2, 1)
    ours, both, one = measured.rows
    assert (both.median_s, one.median_s) == pytest.approx((0.06, 0.01))
    first, second = measured.values["team"]
    assert first[0] != second[0]  # two processes
    assert first[1] == second[1] == 3  # one warm-up and two pairs each
    assert [value[1] for value in measured.values["team of one"]] == [3]
    assert both.peak_rss_mb - 2 * ours.peak_rss_mb == pytest.approx(200, abs=80)
    assert both.loaded_rss_mb > 1.5 * ours.loaded_rss_mb


def test_a_team_fails_with_any_member() -> None:
    with pytest.raises(WorkerError, match="team failed: ValueError: the reason"):
        run_pairs({"team": [Timed(0.0), Failing("raise", "iteration")]}, 2, 0)
    assert multiprocessing.active_children() == []


def test_peak_memory_is_the_workers_own() -> None:
    ballast = np.ones(600 * 10**6, np.uint8)  # ru_maxrss would carry this over into a spawned process
    (row,) = run_pairs({"ours": Timed(0.0)}, 1, 0).rows
    assert ballast.size / 1e6 > row.peak_rss_mb > 10


@pytest.mark.parametrize(
    ("how", "when", "message"),
    [
        ("raise", "build", "peer failed: ValueError: the reason"),
        ("raise", "iteration", "peer failed: ValueError: the reason"),
        ("exit", "iteration", "peer failed: SystemExit: 7"),
        ("die", "build", "peer died with exit code 9"),
        ("kill", "iteration", "peer died with exit code -9: killed, perhaps for lack of memory"),
    ],
)
def test_failures_are_told_and_leave_no_worker(how: str, when: str, message: str) -> None:
    with pytest.raises(WorkerError) as caught:
        run_pairs({"ours": Timed(0.0), "peer": Failing(how, when)}, 3, 0)
    assert str(caught.value) == message
    assert ("in fail" in "".join(getattr(caught.value, "__notes__", []))) is (how in ("raise", "exit"))
    assert multiprocessing.active_children() == []


def test_an_interrupt_ends_a_worker_that_is_busy() -> None:
    def interrupt(line: str) -> None:
        if line.startswith("ours: warm-up"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pairs({"ours": Timed(0.0), "peer": Endless()}, 1, 1, interrupt)
    assert multiprocessing.active_children() == []


def test_a_factory_that_cannot_be_sent_is_an_error() -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match=r"pickle|local object"):
        run_pairs({"ours": lambda: lambda: ({}, None)}, 1, 0)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("count", "pairs", "warmup"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_senseless_numbers_are_refused(count: int, pairs: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        run_pairs({"ours": Timed(0.0)} if count else {}, pairs, warmup)
