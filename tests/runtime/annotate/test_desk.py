"""The desk: one action after the other, on a session without networks."""

import json
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fake_annotator import RADIUS, FakeAnnotator, discs
from PIL import Image

from maskrt.runtime.annotate import states
from maskrt.runtime.annotate.annotator import load_decoders
from maskrt.runtime.annotate.desk import Desk, StaleTurn
from maskrt.runtime.annotate.pictures import Picture
from maskrt.runtime.annotate.store import Store
from maskrt.runtime.errors import InputError, MaskrtError, NetworkError
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.io.images import read_image
from maskrt.runtime.io.masks import read_labels
from maskrt.runtime.rle import decode_rle


def do(desk: Desk, *actions: states.Action) -> states.State:
    for action in actions:
        desk.act(states.Request(desk.state().turn, action))
    return desk.state()


def test_clicks_box_and_undo(desk: Desk) -> None:
    state = do(desk, states.Click(30, 20), states.Click(34, 20, False))
    prompts = [Click(30, 20), Click(34, 20, False)]
    assert state.mask is not None
    np.testing.assert_array_equal(decode_rle(state.mask), discs((60, 80), prompts))
    assert state.clicks == [(30, 20, 1), (34, 20, 0)]
    state = do(desk, states.Box(1, 2, 30, 40), states.Box(5, 6, 50, 50))
    assert state.box == (5, 6, 50, 50)
    assert state.counters.last_ms is not None
    state = do(desk, states.Undo())
    assert state.box == (1, 2, 30, 40)
    state = do(desk, states.Undo(), states.Undo())
    assert (state.box, state.clicks) == (None, [(30, 20, 1)])
    assert do(desk, states.Undo()).mask is None
    assert do(desk, states.Undo()).mask is None  # nothing left


def test_accepted_objects_are_kept_and_learnt_from(desk: Desk, session: FakeAnnotator, out: Path) -> None:
    do(desk, states.Click(30, 20), states.Box(2, 3, 9, 9), states.Accept())
    state = do(desk, states.Choose("blanket"), states.Click(60, 40), states.Click(50, 40), states.Accept())
    first = discs((60, 80), [Click(30, 20), (2, 3, 9, 9)])
    second = discs((60, 80), [Click(60, 40), Click(50, 40)])
    np.testing.assert_array_equal(read_labels(out / "masks/bed_1.png"), np.where(second, 2, first))
    assert [(found.number, found.name, found.clicks) for found in state.objects] == [
        (1, "mattress", 1),
        (2, "blanket", 2),
    ]
    assert (state.clicks, state.box, state.mask) == ([], None, None)
    assert session.learnt == {"base": 0, "mattress": 1, "blanket": 1}
    assert (state.counters.accepted, state.counters.clicks_per_object, state.counters.annotated) == (2, 1.5, 1)
    assert state.counters.steps == session.steps > 0
    state = do(desk, states.Delete(state.objects[0].id))
    assert [(found.number, found.name) for found in state.objects] == [(1, "blanket")]
    np.testing.assert_array_equal(read_labels(out / "masks/bed_1.png"), second)


def test_what_cannot_be_done_changes_nothing(desk: Desk, out: Path) -> None:
    cases: list[tuple[states.Action, str]] = [
        (states.Accept(), "click on an object first"),
        (states.Click(80, 0), "outside the image"),
        (states.Click(-1, 0), "outside the image"),
        (states.Click(0, 2**70), "outside the image"),
        (states.Box(5, 5, 5, 9), "not inside"),
        (states.Show(3), "no picture 4: choose 1 to 3"),
        (states.Show(-1), "no picture 0"),
        (states.Choose("cat"), "choose from mattress, blanket"),
        (states.Delete(1), "not on the picture"),
    ]
    before = (out / "annotations.json").read_bytes()
    for action, said in cases:
        with pytest.raises(InputError, match=said):
            do(desk, action)
    state = desk.state()
    assert (state.clicks, state.box, state.mask, state.index) == ([], None, None, 0)
    do(desk, states.Click(5, 5))
    for action in (states.Choose("blanket"), states.Save()):
        with pytest.raises(InputError, match="finish the object first"):
            do(desk, action)
    do(desk, states.Choose("mattress"))  # is chosen
    do(desk, states.Click(5, 5, False))
    with pytest.raises(InputError, match="mask is empty"):
        do(desk, states.Accept())
    assert (out / "annotations.json").read_bytes() == before


def test_a_stale_turn_does_nothing(desk: Desk) -> None:
    seen = desk.state().turn
    desk.act(states.Request(seen, states.Click(5, 5)))
    with pytest.raises(StaleTurn, match="faster"):
        desk.act(states.Request(seen, states.Click(6, 6)))
    assert desk.state().clicks == [(5, 5, 1)]
    do(desk, states.Show(2))
    with pytest.raises(StaleTurn):
        desk.picture(0)


class Queue:
    """A lock that knows how many threads wait for it."""

    def __init__(self) -> None:
        self._lock, self._changed, self._waiting = threading.Lock(), threading.Condition(), 0

    def __enter__(self) -> None:
        self._count(1)
        self._lock.acquire()
        self._count(-1)

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _count(self, more: int) -> None:
        with self._changed:
            self._waiting += more
            self._changed.notify_all()

    def holds(self, waiting: int) -> bool:
        """Wait until so many threads wait; false if that takes a minute."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting == waiting, timeout=60)


def test_only_one_of_many_browsers_is_first(
    desk: Desk, session: FakeAnnotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, queue = desk.state().turn, Queue()
    monkeypatch.setattr(desk, "_lock", queue)
    entered: list[bool] = []
    stale: list[int] = []

    def click(x: int) -> None:
        try:
            desk.act(states.Request(turn, states.Click(x, 5)))
        except StaleTurn:
            stale.append(x)

    # Whoever is in the session stays until all others wait for the desk.
    session.before = lambda: entered.append(queue.holds(5))
    threads = [threading.Thread(target=click, args=(x,)) for x in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(entered) == {True}
    assert len(stale) == 5
    assert len(desk.state().clicks) == 1


def test_pictures(desk: Desk, session: FakeAnnotator, pictures: list[Picture]) -> None:
    state = desk.state()
    assert (state.name, state.index, state.count, state.size_hw) == ("bed_1.png", 0, 3, (60, 80))
    shown = np.asarray(Image.open(BytesIO(desk.picture(0))))
    np.testing.assert_array_equal(shown, read_image(pictures[0].path))
    assert session.images == 0
    turn = state.turn
    assert do(desk, states.Prepare()).turn == turn  # nothing that another browser has to know
    do(desk, states.Prepare(), states.Click(5, 5))
    assert session.images == 1
    state = do(desk, states.Show(1))
    assert state.problem is not None
    assert "bed_2.png is not an image" in state.problem
    assert (state.size_hw, state.clicks) == (None, [])
    for action in (states.Click(5, 5), states.Prepare(), states.Accept()):
        with pytest.raises(InputError, match="not an image"):
            do(desk, action)
    with pytest.raises(InputError, match="not an image"):
        desk.picture(1)
    assert do(desk, states.Undo(), states.Reset(), states.Show(2), states.Click(5, 5)).problem is None
    assert session.images == 2


def test_a_picture_that_has_changed_is_a_problem(
    desk: Desk, pictures: list[Picture], session: FakeAnnotator, out: Path
) -> None:
    do(desk, states.Click(9, 9), states.Accept())
    Image.new("RGB", (80, 60)).save(pictures[0].path)
    state = do(desk, states.Show(2), states.Show(0))
    assert state.problem is not None
    assert "is not the picture" in state.problem
    pictures[0].path.unlink()
    assert "no such file" in (do(desk, states.Show(0)).problem or "")


def test_objects_with_many_clicks_are_failures(desk: Desk, session: FakeAnnotator) -> None:
    many = [states.Click(10 + at, 10) for at in range(20)]
    assert do(desk, *many[:19], states.Reset()).counters.failures == 0
    assert do(desk, *many, states.Reset()).counters.failures == 1
    assert do(desk, *many, states.Show(2)).counters.failures == 2
    state = do(desk, *many, states.Accept())
    assert (state.counters.failures, state.counters.clicks_per_object) == (3, 20)
    do(desk, *many)
    desk.finish()
    assert desk.state().counters.failures == 4
    assert session.mask is None


def test_what_is_given_up_teaches_its_clicks(desk: Desk, session: FakeAnnotator, out: Path) -> None:
    many = [states.Click(10 + at, 10) for at in range(20)]
    do(desk, *many[:19], states.Reset())
    assert session.learnt["mattress"] == 0
    do(desk, *many, states.Reset())
    assert session.learnt["mattress"] == 1
    session.fail["give_up"] = NetworkError("learn.onnx ran out of memory")
    with pytest.raises(MaskrtError, match="given up, but nothing was learnt from its clicks: learn"):
        do(desk, *many, states.Reset())
    assert (desk.state().clicks, desk.state().counters.failures, session.mask) == ([], 2, None)
    session.fail = {}
    do(desk, states.Save(), *many)
    desk.finish()
    assert json.loads((out / "decoders/mattress.safetensors").read_text()) == 2


def test_decoders_are_saved_and_found_again(
    desk: Desk, session: FakeAnnotator, pictures: list[Picture], out: Path
) -> None:
    assert not desk.state().unsaved
    assert do(desk, states.Click(9, 9), states.Accept(), states.Click(9, 9), states.Accept()).unsaved
    assert not (out / "decoders").exists()
    state = do(desk, states.Save())
    assert (state.unsaved, state.chosen) == (False, "mattress")
    assert [path.name for path in (out / "decoders").iterdir()] == ["mattress.safetensors"]
    do(desk, states.Choose("blanket"), states.Click(9, 9), states.Accept())
    desk.finish()
    assert sorted(path.name for path in (out / "decoders").iterdir()) == [
        "blanket.safetensors",
        "mattress.safetensors",
    ]
    later, store = FakeAnnotator(), Store(out, ["tube"])
    load_decoders(later, store, {})
    assert later.learnt == {"base": 0, "mattress": 2, "blanket": 1}
    load_decoders(later, store, {"tube": out / "decoders/mattress.safetensors"})
    assert later.learnt["tube"] == 2
    with pytest.raises(InputError, match="--load cat: there is no such class"):
        load_decoders(later, store, {"cat": out / "decoders/mattress.safetensors"})
    # Where there is nothing yet, the work goes on.
    assert Desk(later, pictures, store).state().index == 1


def test_an_object_outlives_a_network_that_fails(desk: Desk, session: FakeAnnotator, out: Path) -> None:
    do(desk, states.Click(30, 20))
    session.fail["accept"] = NetworkError("learn.onnx ran out of memory")
    with pytest.raises(MaskrtError, match="the object is kept, but nothing was learnt from it: learn"):
        do(desk, states.Accept())
    state = desk.state()
    assert (len(state.objects), state.clicks, state.mask) == (1, [], None)
    assert read_labels(out / "masks/bed_1.png").sum() == discs((60, 80), [Click(30, 20)]).sum() > RADIUS
    session.fail = {"set_image": NetworkError("encoder.onnx returned NaN")}
    do(desk, states.Show(2))
    with pytest.raises(NetworkError, match="NaN"):
        do(desk, states.Click(5, 5))
    session.fail = {}
    assert do(desk, states.Click(5, 5)).clicks == [(5, 5, 1)]
