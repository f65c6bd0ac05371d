"""Limits of one request, and of all of them together; and that they take turns."""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from serve_session import FakeSession, png

from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.serve.load import LINES_S, MOST_BODIES, MOST_LINES, FailureLines, Load
from maskrt.runtime.serve.predictor import ClientGone, Predictor, Prompt
from maskrt.runtime.web.refused import Refused

ONE, OTHER = png(np.zeros((40, 60, 3), np.uint8)), png(np.zeros((30, 50, 3), np.uint8))


def prompts(count: int, y: int) -> Callable[[tuple[int, int]], Sequence[Prompt]]:
    return lambda size_hw: [Prompt((Click(x, y),)) for x in range(count)]


async def _stays() -> bool:
    return False


def test_requests_take_turns_and_keep_their_own_picture(session: FakeSession) -> None:
    predictor = Predictor(session, 10_000)
    kept = []

    async def both() -> Any:
        def size(mask: Any) -> tuple[int, int]:
            kept.append(mask.shape)
            return mask.shape

        return await asyncio.gather(
            predictor.draw(ONE, prompts(20, 1), size, _stays), predictor.draw(OTHER, prompts(3, 2), size, _stays)
        )

    assert asyncio.run(both()) == [[(40, 60)] * 20, [(30, 50)] * 3]
    assert len(session.pictures) == 2  # each is embedded once, though they alternate
    # The request with three prompts does not wait for the one with twenty.
    assert kept[:7].count((30, 50)) == 3


def test_work_stops_when_the_client_has_gone(session: FakeSession) -> None:
    predictor = Predictor(session, 10_000)

    async def gone_after_four() -> bool:
        return len(session.asked) == 4

    with pytest.raises(ClientGone):
        asyncio.run(predictor.draw(ONE, prompts(20, 1), np.shape, gone_after_four))
    assert len(session.asked) == 4
    assert asyncio.run(predictor.draw(ONE, prompts(1, 1), np.shape, _stays)) == [(40, 60)]


def test_only_one_mask_is_in_memory(session: FakeSession) -> None:
    asked = asyncio.run(Predictor(session, 10_000).draw(ONE, prompts(3, 1), lambda _: len(session.asked), _stays))
    assert asked == [1, 2, 3]


def test_bodies_have_room_until_they_are_answered() -> None:
    load = Load(100)
    with load.body() as take, load.body() as other:
        take(100 * MOST_BODIES - 10)
        other(10)
        with pytest.raises(Refused, match="busy with other requests") as caught:
            other(1)
        assert caught.value.status == 503
    with load.body() as take:
        take(100 * MOST_BODIES)


def test_lines_about_failures_end_for_a_while() -> None:
    told: list[str] = []
    now = 0.0
    lines = FailureLines(told.append, lambda: now)
    for number in range(1000):
        lines(f"{number}")
    assert told == [*map(str, range(MOST_LINES - 1)), "more failed requests are not shown for 60 s"]
    now = LINES_S + 1
    lines("again")
    assert told[-1] == "again"


@pytest.fixture
def client(make_client: Any) -> Any:
    """A client with the token, which may send much."""
    client = make_client(max_bytes=10**8)
    client.headers["Token"] = "s3cret-token"
    return client


def mark(kind: str, at: int) -> dict[str, Any]:
    corners = [at % 30, 5] if kind == "point" else [at % 30, 5, 40, 30]
    return {"type": kind, "data": corners}


def region(kind: str, at: int) -> dict[str, Any]:
    type_ = "keypointlabels" if kind == "point" else "rectanglelabels"
    return {"type": type_, "to_name": "i", "value": {"x": at % 30, "y": 5, "width": 9, "height": 9, type_: ["a"]}}


CONFIG = '<View><Image name="i" value="$i"/><BrushLabels name="b" toName="i"/></View>'


def bodies(kind: str, count: int) -> dict[str, Any]:
    image = base64.b64encode(ONE).decode()
    context = {"result": [region(kind, at) for at in range(count)]}
    tasks = [{"data": {"i": f"data:image/png;base64,{image}"}}]
    return {
        "/v1/predict": {
            "model": "ward",
            "image": image,
            "params": {"marks": [mark(kind, at) for at in range(count)]},
        },
        "/predict": {"tasks": tasks, "label_config": CONFIG, "params": {"context": context}},
    }


@pytest.mark.parametrize("path", ["/v1/predict", "/predict"])
@pytest.mark.parametrize(("kind", "most"), [("point", 64), ("rectangle", 100)])
def test_prompts_of_a_request(
    client: Any, session: FakeSession, told: list[str], refusal: Any, path: str, kind: str, most: int
) -> None:
    assert client.post(path, content=json.dumps(bodies(kind, most)[path])).status_code == 200
    assert len(session.asked) == (1 if kind == "point" else most)
    name = "points" if kind == "point" else "boxes"
    for count in (most + 1, 8000):
        told.clear()
        message = refusal(client.post(path, json=bodies(kind, count)[path]), 400)
        assert message == f"the request has {count} {name}: at most {most} are taken"
    assert len(session.asked) == (1 if kind == "point" else most)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/predict", {"model": "ward", "image": "", "params": {"marks": [], "a": "b" * 2_000_000}}, "2000019 bytes"),
        ("/setup", {"project": "a", "schema": "b", **{f"k{at}": 1 for at in range(200_000)}}, "200002 fields"),
        (
            "/predict",
            {**bodies("point", 1)["/predict"], "label_config": f"<View>{' ' * 200_000}</View>"},
            "the labeling configuration has 200013 letters: at most 200000 are taken",
        ),
        (
            "/predict",
            {"tasks": [], "params": {"context": {"result": [{"type": "keypointlabels", "value": ["a" * 10_000]}]}}},
            "has 10004 bytes at `$.params.context.result[...].value`: at most 10000 are taken",
        ),
    ],
)
def test_other_sizes(client: Any, refusal: Any, path: str, body: Any, message: str) -> None:
    assert message in refusal(client.post(path, json=body), 400)
