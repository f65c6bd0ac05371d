"""TensorRtSession.refit: new weights under a session that runs."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refittable import Feeds, as_of_schema_2, build, edit, on_cpu, other_operator
from tiny_bundle import write_tiny_bundle

from maskrt.runtime.engines.tensorrt.memory import Buffer
from maskrt.runtime.engines.tensorrt.session import TensorRtSession
from maskrt.runtime.errors import BundleError, NetworkError


def masks(session: TensorRtSession, feeds: Feeds) -> np.ndarray:
    return session.run(feeds)["low_res_masks"]


@pytest.fixture
def session(tensorrt_device: Any, old: Path) -> Iterator[TensorRtSession]:
    """A session of the older bundle's decoder."""
    build(old)
    with TensorRtSession(old / "decoder.onnx", callers=3) as session:
        yield session


def test_a_session_takes_new_weights(tensorrt_machine: Any, old: Path, new: Path, feeds: Feeds) -> None:
    build(old)
    expected = {bundle: on_cpu(bundle, feeds) for bundle in (old, new)}
    assert not np.allclose(expected[old], expected[new], atol=1)
    with TensorRtSession(old / "decoder.onnx") as session:
        assert np.allclose(masks(session, feeds), expected[old], atol=1e-3)
        for bundle in (new, old, new):
            session.refit(bundle / "decoder.onnx")
            for _ in range(4):  # an ordinary run, one that is captured as a graph, and launches of it
                assert np.allclose(masks(session, feeds), expected[bundle], atol=1e-3)
        if tensorrt_machine is not None:
            assert (tensorrt_machine.refitted, tensorrt_machine.most_contexts) == (3, 1)
    with TensorRtSession(old / "decoder.onnx") as session:  # the engine on disk is what it was
        assert np.allclose(masks(session, feeds), expected[old], atol=1e-3)


def test_before_the_first_run(session: TensorRtSession, new: Path, feeds: Feeds) -> None:
    session.refit(new / "decoder.onnx")
    assert np.allclose(masks(session, feeds), on_cpu(new, feeds), atol=1e-4)


def test_callers_that_run_meanwhile(
    session: TensorRtSession, tensorrt_device: Any, old: Path, new: Path, feeds: Feeds
) -> None:
    """Every answer is that of the one or the other decoder, and after a refit has returned, of the new one."""
    either, stop = [on_cpu(bundle, feeds) for bundle in (old, new)], threading.Event()

    def call() -> list[tuple[bool, ...]]:
        found = []
        while not stop.is_set():
            value = masks(session, feeds)
            found.append(tuple(np.allclose(value, each, atol=1e-4) for each in either))
        return found

    def change(bundles: list[Path]) -> None:
        for bundle in bundles * 4:
            session.refit(bundle / "decoder.onnx")

    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(call) for _ in range(4)]
        try:
            changes = [pool.submit(change, [old, new]) for _ in range(2)]
            for each in changes:
                each.result(60)
            session.refit(new / "decoder.onnx")
            assert np.allclose(masks(session, feeds), either[1], atol=1e-4)
        finally:
            stop.set()
        seen = {pair for each in calls for pair in each.result(60)}
    assert seen <= {(True, False), (False, True)}
    assert (True, False) in seen or (False, True) in seen
    assert tensorrt_device.refitted == 17
    assert tensorrt_device.most_contexts <= 3


def altered(bundle: Path) -> None:
    file = bundle / "decoder.onnx"
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "other network": (other_operator, r"decoder\.onnx: it and its engine's graph differ in more than their weights"),
    "no structure": (
        as_of_schema_2,
        "its bundle or its engine's has no structure_sha256.*: export them again",
    ),
    "altered": (altered, "sha256 differs from the bundle's"),
    "no file": (lambda bundle: (bundle / "decoder.onnx").unlink(), r"decoder\.onnx \(decoder\) is missing"),
    "no bundle": (lambda bundle: (bundle / "bundle.json").unlink(), "is not a bundle"),
    "not in the bundle": (
        lambda bundle: edit(bundle, lambda manifest: manifest["models"].pop("decoder")),
        r"names no file decoder\.onnx: copy the whole folder again",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_does_not_fit_changes_nothing(
    session: TensorRtSession, tensorrt_device: Any, old: Path, new: Path, feeds: Feeds, case: str
) -> None:
    spoil, reason = REFUSED[case]
    before = masks(session, feeds)
    spoil(new)
    with pytest.raises(BundleError, match=reason):
        session.refit(new / "decoder.onnx")
    assert (masks(session, feeds) == before).all()
    assert tensorrt_device.refitted == 0
    session.refit(write_tiny_bundle(old.parent / "third", radii=(3.0, 6.0, 9.0)) / "decoder.onnx")
    assert not np.allclose(masks(session, feeds), before, atol=1)


def test_weights_that_are_missing_change_nothing(
    session: TensorRtSession, tensorrt_device: Any, new: Path, feeds: Feeds
) -> None:
    before = masks(session, feeds)
    tensorrt_device.withheld.add("quality")
    with pytest.raises(NetworkError, match=r"decoder\.onnx: it lacks weights of its engine: quality"):
        session.refit(new / "decoder.onnx")
    assert (masks(session, feeds) == before).all()


def test_the_bundle_was_exported_anew_while_the_session_ran(session: TensorRtSession, old: Path, feeds: Feeds) -> None:
    """The file that the engine was built from counts, not the one that lies at its path now."""
    before = masks(session, feeds)
    write_tiny_bundle(old, radii=(3.0, 6.0, 9.0))
    other_operator(old)
    with pytest.raises(BundleError, match="differ in more than their weights"):
        session.refit(old / "decoder.onnx")
    assert (masks(session, feeds) == before).all()
    write_tiny_bundle(old, radii=(3.0, 6.0, 9.0))
    session.refit(old / "decoder.onnx")
    assert np.allclose(masks(session, feeds), on_cpu(old, feeds), atol=1e-4)


def test_weights_that_were_set_in_part_close_the_session(
    session: TensorRtSession, old: Path, tmp_path: Path, feeds: Feeds
) -> None:
    before = masks(session, feeds)
    bad = write_tiny_bundle(tmp_path / "nan", radii=(np.nan, 9.0, 14.0)) / "decoder.onnx"
    with pytest.raises(
        NetworkError,
        match="could not be set: weights squares hold NaN or infinity: the session is closed, open it again",
    ):
        session.refit(bad)
    with pytest.raises(NetworkError, match="the session is closed"):
        masks(session, feeds)
    with pytest.raises(NetworkError, match="the session is closed"):
        session.refit(old / "decoder.onnx")
    with TensorRtSession(old / "decoder.onnx") as again:
        assert (masks(again, feeds) == before).all()


def test_callers_that_wait_while_weights_fail(
    monkeypatch: pytest.MonkeyPatch, session: TensorRtSession, tmp_path: Path, feeds: Feeds
) -> None:
    """They get no answer of an engine with a part of the weights."""
    from maskrt.runtime.engines.tensorrt import session as tensorrt_session

    waiting, refit = threading.Event(), tensorrt_session.FileRefit  # type: ignore[attr-defined]
    bad = write_tiny_bundle(tmp_path / "nan", radii=(np.nan, 9.0, 14.0)) / "decoder.onnx"
    masks(session, feeds)
    take = session._take

    def told() -> Any:
        waiting.set()
        return take()

    with ThreadPoolExecutor(1) as pool:

        def slow(*arguments: Any) -> Any:  # no lane can be taken now
            monkeypatch.setattr(session, "_take", told)
            slow.call = pool.submit(masks, session, feeds)  # type: ignore[attr-defined]
            assert waiting.wait(30)
            return refit(*arguments)

        monkeypatch.setattr(tensorrt_session, "FileRefit", slow)
        with pytest.raises(NetworkError, match="could not be set"):
            session.refit(bad)
        with pytest.raises(NetworkError, match="closed when its weights could not be set: open it again"):
            slow.call.result(30)  # type: ignore[attr-defined]


def test_a_run_that_fails_is_over_before_a_refit_begins(
    monkeypatch: pytest.MonkeyPatch, session: TensorRtSession, tensorrt_device: Any, feeds: Feeds
) -> None:
    """Work that has begun on the GPU is waited for while the session still counts it as running."""
    give_back, under_way = session._give_back, []

    def told(lane: Any) -> None:
        under_way.append(any(tensorrt_device.streams.values()))
        give_back(lane)

    def fail(*_: Any) -> None:
        assert any(tensorrt_device.streams.values())
        raise NetworkError("no pinned memory")

    monkeypatch.setattr(session, "_give_back", told)
    with monkeypatch.context() as failing:
        failing.setattr(Buffer, "fetch", fail)
        with pytest.raises(NetworkError, match="no pinned memory"):
            masks(session, feeds)
    masks(session, feeds)
    assert under_way == [False, False]
    assert tensorrt_device.most_contexts == 1


def test_a_session_of_a_file_that_no_bundle_describes(tensorrt_device: Any, old: Path, new: Path, feeds: Feeds) -> None:
    """It runs as ever; what its structure is, nobody says."""
    build(old)
    edit(old, lambda manifest: manifest["models"].pop("decoder"))
    with TensorRtSession(old / "decoder.onnx") as session:
        before = masks(session, feeds)
        with pytest.raises(BundleError, match="has no structure_sha256"):
            session.refit(new / "decoder.onnx")
        assert (masks(session, feeds) == before).all()


def test_engines_that_take_no_weights(tensorrt_device: Any, old: Path, new: Path) -> None:
    build(old, role="segmenter")
    with (
        TensorRtSession(old / "segmenter.onnx") as session,
        pytest.raises(BundleError, match=r"segmenter\.onnx: its engine was not built to be refitted"),
    ):
        session.refit(new / "segmenter.onnx")
    with pytest.raises(NetworkError, match="the session is closed"):
        session.refit(new / "segmenter.onnx")
