"""Sessions that learn, on engines: encoder and click decoder by TensorRT, which is refitted, the step on the CPU."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs maskrt[export]")

from refittable import build, edit
from safetensors.numpy import load_file, save

import maskrt
from maskrt.runtime.engine_build import builder as tensorrt_build
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.tensorrt.session import TensorRtSession
from maskrt.runtime.errors import BundleError, NetworkError, OutOfMemory
from maskrt.runtime.files import sha256_of
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.interactive.decoder import WeightsByRefit
from maskrt.runtime.interactive.networks import ClickNetworks
from maskrt.runtime.interactive.session import InteractiveSession
from maskrt.runtime.interactive.state import on_host

Arrays = dict[str, np.ndarray]


@pytest.fixture
def bundle(tiny_interactive: tuple[Path, tuple[str, ...]], tmp_path: Path) -> Path:
    """One to build engines in."""
    return Path(shutil.copytree(tiny_interactive[0], tmp_path / "bundle"))


@pytest.fixture
def built(tensorrt_device: Any, bundle: Path) -> Path:
    for role in ("encoder", "click_decoder"):
        build(bundle, role=role)
    return bundle


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.random.default_rng(20261127).integers(0, 256, (45, 70, 3), np.uint8)


def opened(
    bundle: Path, rgb: np.ndarray, provider: str = "tensorrt", cache_dir: Path | None = None, **settings: Any
) -> InteractiveSession:
    chosen = {"learning_rate": 0.001, **settings}
    session = maskrt.open_interactive(bundle, provider, settings=chosen, cache_dir=cache_dir)
    session.set_image(rgb)
    return session


def work(session: InteractiveSession) -> list[np.ndarray]:
    """Whatever changes the weights, and the masks after each prompt."""
    masks = [session.click(30, 20), session.click(5, 40, positive=False), session.click(60, 10)]
    undone = session.undo()
    assert undone is not None
    masks += [undone, session.accept()]
    state = session.state()
    session.use("cable")
    masks += [session.click(10, 10), session.box(3, 4, 50, 30), session.accept()]
    session.use("base")
    masks.append(session.click(50, 30))
    session.restore(state)
    masks += [session.predict([Click(20, 20)]), session.click(50, 30), session.click(40, 40)]
    return masks


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Arrays, Arrays, tuple[np.ndarray, np.ndarray]]]:
    """The runs of click decoders from now on: weights, prompt, answer."""
    found: list[tuple[Arrays, Arrays, tuple[np.ndarray, np.ndarray]]] = []
    ask = ClickNetworks.ask

    def recorded(self: ClickNetworks, weights: Any, feeds: Any) -> tuple[np.ndarray, np.ndarray]:
        answer = ask(self, weights, feeds)
        found.append((on_host(weights), on_host(feeds), answer))
        return answer

    monkeypatch.setattr(ClickNetworks, "ask", recorded)
    return found


def test_every_answer_is_that_of_the_weights_of_the_moment(
    tensorrt_machine: Any, bundle: Path, rgb: np.ndarray, asked: list[Any]
) -> None:
    for role in ("encoder", "click_decoder"):
        build(bundle, role=role)
    with opened(bundle, rgb, learning_rate=1e-2) as session:
        work(session)
    learnt = 0
    with open_session(bundle / "click_decoder.onnx") as cpu:
        for weights, feeds, (masks, pred_iou) in asked:
            expected = cpu.run({**feeds, **weights})
            np.testing.assert_allclose(masks, expected["low_res_masks"], atol=1e-3)
            np.testing.assert_allclose(pred_iou, expected["pred_iou"], atol=1e-3)
            learnt += np.abs(masks - cpu.run(feeds)["low_res_masks"]).max() > 1e-2
    assert (len(asked), learnt) == (11, 8)


def test_a_session_learns_as_on_the_cpu(built: Path, rgb: np.ndarray, asked: list[Any]) -> None:
    with opened(built, rgb) as session:
        work(session)
        steps, state = session.steps, session.state()
    ours = asked.copy()
    asked.clear()
    with opened(built, rgb, "cpu") as session:
        work(session)
        assert session.steps == steps
        for name, value in session.state().items():
            np.testing.assert_allclose(state[name], value, atol=1e-3, err_msg=name)
    for (_, _, (masks, _)), (_, _, (expected, _)) in zip(ours, asked, strict=True):
        np.testing.assert_allclose(masks, expected, atol=1e-2)


def test_the_engine_is_refitted_where_weights_have_changed(
    built: Path, rgb: np.ndarray, tensorrt_device: Any, tmp_path: Path
) -> None:
    counts = []

    def does(*steps: Callable[[], Any]) -> None:
        for step in steps:
            step()
            counts.append(tensorrt_device.refitted)

    with opened(built, rgb, click_adaptation="C") as session:
        assert tensorrt_device.refitted == 1  # when it was opened
        does(
            lambda: session.predict([Click(5, 5)]),
            lambda: session.click(5, 5),
        )
        assert counts == [1, 1]
        counts.clear()
        does(
            lambda: session.predict([Click(5, 5)]),  # what the click has taught
            lambda: session.predict([Click(9, 9)]),
            lambda: session.box(1, 1, 30, 30),  # which teaches nothing
            lambda: session.undo(),  # asks the first click's weights, those of the beginning
            lambda: session.accept(),
            lambda: session.predict([Click(5, 5)]),
            lambda: session.use("cable"),
            lambda: session.predict([Click(5, 5)]),
            lambda: session.use("base"),
            lambda: session.predict([Click(5, 5)]),
        )
        assert counts == [2, 2, 2, 3, 3, 4, 4, 5, 5, 6]
        counts.clear()
        session.save_decoder(tmp_path / "own.safetensors")
        does(
            lambda: session.restore(session.state()),
            lambda: session.predict([Click(5, 5)]),
            lambda: session.load_decoder("base", tmp_path / "own.safetensors"),
            lambda: session.predict([Click(5, 5)]),
            lambda: session.set_image(rgb[::-1]),
            lambda: session.predict([Click(5, 5)]),
        )
        assert counts == [6, 7, 7, 8, 8, 8]


def test_the_first_answer_is_that_of_the_bundles_weights(built: Path, rgb: np.ndarray, asked: list[Any]) -> None:
    """Whatever the engine was built with."""

    def ask(provider: str) -> None:
        with opened(built, rgb, provider) as session:
            session.predict([Click(5, 5)])

    ask("tensorrt")
    file = built / "weights.safetensors"
    file.write_bytes(save({name: value * np.float32(1.1) for name, value in load_file(file).items()}))
    changed = {"sha256": sha256_of(file), "size_bytes": file.stat().st_size}
    edit(built, lambda manifest: manifest["models"]["weights"].update(changed))
    ask("tensorrt")
    ask("cpu")
    before, ours, expected = (masks for _, _, (masks, _) in asked)
    np.testing.assert_allclose(ours, expected, atol=1e-3)
    assert np.abs(before - expected).max() > 1e-2


def test_weights_that_could_not_be_set_are_set_by_the_next_prompt(
    monkeypatch: pytest.MonkeyPatch, built: Path, rgb: np.ndarray, tensorrt_device: Any
) -> None:
    with opened(built, rgb) as session:
        first = session.click(5, 5)
        with monkeypatch.context() as patched:
            patched.setattr(sys.modules["tensorrt"].Refitter, "set_named_weights", lambda *_: False)
            for _ in range(2):
                with pytest.raises(NetworkError, match="TensorRT refuses the weights"):
                    session.click(30, 20)
        assert (session.clicks, tensorrt_device.refitted) == ((Click(5, 5),), 1)
        np.testing.assert_array_equal(session.mask, first)
        second = session.click(30, 20)
        assert tensorrt_device.refitted == 2
        with opened(built, rgb, "cpu") as cpu:
            for x, y in ((5, 5), (30, 20)):
                cpu.click(x, y)
            np.testing.assert_allclose(session._answers[-1].low_res, cpu._answers[-1].low_res, atol=1e-3)
        np.testing.assert_array_equal(session.mask, second)


def test_weights_that_were_set_in_part(
    monkeypatch: pytest.MonkeyPatch, built: Path, rgb: np.ndarray, tmp_path: Path
) -> None:
    """No prompt is answered with them, whatever decoder is used; what was learnt can be saved."""
    with opened(built, rgb) as session:
        session.click(5, 5)
        session.accept()
        with monkeypatch.context() as patched:
            patched.setattr(sys.modules["tensorrt"].Refitter, "refit_cuda_engine", lambda *_: False)
            with pytest.raises(NetworkError, match="the session is closed, open it again"):
                session.click(30, 20)
        session.use("cable")
        with pytest.raises(NetworkError, match="the session is closed: open it again"):
            session.click(30, 20)
        session.use("base")
        session.save_decoder(tmp_path / "own.safetensors")
    with opened(built, rgb) as session:
        session.load_decoder("base", tmp_path / "own.safetensors")
        session.click(30, 20)


def test_embeddings_lie_on_the_host(built: Path, rgb: np.ndarray, tmp_path: Path) -> None:
    """Where the step computes; in a file, they are the next session's too."""
    with opened(built, rgb, cache_dir=tmp_path / "cache") as session:
        session.click(5, 5)
        assert all(isinstance(value, np.ndarray) for value in session._answers[-1].feeds.values())
        embedding = session._set().embedding
    assert len(list((tmp_path / "cache").glob("*-tensorrt.safetensors"))) == 1
    with opened(built, rgb, cache_dir=tmp_path / "cache") as again:
        np.testing.assert_array_equal(again._set().embedding, embedding)
        again.click(5, 5)


@pytest.fixture
def decoder(built: Path) -> Any:
    with TensorRtSession(built / "click_decoder.onnx") as session:
        yield WeightsByRefit(session)


@pytest.fixture
def base(bundle: Path) -> Arrays:
    return load_file(bundle / "weights.safetensors")


def test_weights_that_do_not_fit_are_refused(decoder: WeightsByRefit, base: Arrays, tensorrt_device: Any) -> None:
    name = next(iter(base))
    for wrong, why in (
        ({**base, "no.such": np.ones(3, np.float32)}, "its engine has no weights no.such"),
        ({**base, name: np.ones(base[name].size + 1, np.float32)}, f"weights {name} are float32"),
    ):
        with pytest.raises(BundleError, match=rf"does not take the weights of the bundle: .*{why}"):
            decoder.require(wrong)
    assert tensorrt_device.refitted == 0
    decoder.require(base)
    assert tensorrt_device.refitted == 1


def test_a_refit_that_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, built: Path, rgb: np.ndarray, asked: list[Any]
) -> None:
    """By Ctrl-C, which Python sees when the new weights are set: those of before have to be set again."""
    with opened(built, rgb) as session:
        before = session.predict([Click(5, 5)])
        session.use("cable")
        session.click(5, 5)
        native = session._networks.decoder.session
        refit = native.refit_weights  # type: ignore[attr-defined]

        def interrupted(weights: Arrays) -> None:
            refit(weights)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(native, "refit_weights", interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.click(30, 20)
        session.reset()
        session.use("base")
        np.testing.assert_array_equal(session.predict([Click(5, 5)]), before)
    np.testing.assert_array_equal(asked[-1][2][0], asked[0][2][0])


def test_a_lack_of_memory_is_no_fault_of_the_bundle(
    monkeypatch: pytest.MonkeyPatch, decoder: WeightsByRefit, base: Arrays
) -> None:
    def fail(_: Arrays) -> None:
        raise OutOfMemory("full")

    monkeypatch.setattr(decoder.session, "refit_weights", fail)
    with pytest.raises(OutOfMemory, match="full"):
        decoder.require(base)


def test_an_engine_that_takes_no_weights_is_refused(
    monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, bundle: Path
) -> None:
    monkeypatch.setattr(tensorrt_build, "UNSOUND_REFIT", ("10.16", "11.4"))
    for role in ("encoder", "click_decoder"):
        build(bundle, role=role)
    with pytest.raises(BundleError, match=r"click_decoder\.onnx: its engine was not built to be refitted"):
        maskrt.open_interactive(bundle, "tensorrt")


def test_a_bundle_without_engines(tensorrt_device: Any, bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"maskrt build \S*bundle"):
        maskrt.open_interactive(bundle, "tensorrt")
