"""One client cannot take the server from the others: counts, foreign pages, and turns."""

import threading
import time
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from maskrt.runtime.errors import MaskrtError
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.serve.predictor import MOST_BOXES, MOST_POINTS, prompts_of
from maskrt.runtime.serve.turns import Turns


def test_as_many_prompts_as_the_bounds_say() -> None:
    assert len(prompts_of([Click(0, 0, True)] * MOST_POINTS, [(0, 0, 1, 1)] * MOST_BOXES)) == MOST_BOXES
    for clicks, boxes in ((MOST_POINTS + 1, 0), (0, MOST_BOXES + 1)):
        with pytest.raises(MaskrtError, match="send at most 64 and 100"):
            prompts_of([Click(0, 0, True)] * clicks, [(0, 0, 1, 1)] * boxes)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example", "Content-Type": "application/json"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}, 403),
        ({"Origin": "null", "Content-Type": "application/json"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Origin": "http://127.0.0.1:8000", "Content-Type": "application/json"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(
    make_client: Callable[..., TestClient], headers: dict[str, str], status: int
) -> None:
    body = b'{"project": "1", "schema": "<View/>"}'
    assert make_client(token=None).post("/setup", content=body, headers=headers).status_code == status


def test_turns_are_taken_in_the_order_of_asking() -> None:
    turns, order, threads = Turns(), list[int](), list[threading.Thread]()

    def work(number: int) -> None:
        with turns.turn():
            order.append(number)

    with turns.turn():
        for number in range(5):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            while len(turns._queue) < number + 2:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
