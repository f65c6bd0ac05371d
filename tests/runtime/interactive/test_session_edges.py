"""Sessions that learn: what they refuse, and what they leave alone when something fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs maskrt[export]")


import maskrt
from maskrt.runtime.errors import BundleError, InputError, NetworkError
from maskrt.runtime.interactive import session as interactive
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.interactive.session import InteractiveSession


@pytest.fixture
def bundle(tiny_interactive: tuple[Path, tuple[str, ...]]) -> Path:
    return tiny_interactive[0]


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.random.default_rng().integers(0, 256, (45, 70, 3), np.uint8)


def opened(bundle: Path, rgb: np.ndarray, **options: object) -> InteractiveSession:
    session = maskrt.open_interactive(bundle, settings={"learning_rate": 0.001, **options})
    session.set_image(rgb)
    return session


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_nothing_is_learnt_from_a_box(bundle: Path, rgb: np.ndarray) -> None:
    with opened(bundle, rgb) as session:
        session.box(1, 1, 30, 30)
        assert session.steps == 0
        session.click(5, 5)
        assert session.steps == 1
        session.box(2, 2, 40, 40)
        assert session.steps == 1
        np.testing.assert_array_equal(session._answers[-1].feeds["point_labels"], [[1, 2, 3]])  # one box, no padding


def test_an_undo_that_fails_takes_nothing_back(bundle: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(bundle, rgb, click_adaptation="C") as session:
        session.click(5, 5)
        session.click(30, 20)
        mask, learned = session.mask, session._state

        def failing(*_: Any, **__: Any) -> None:
            raise NetworkError("the GPU is gone")

        with monkeypatch.context() as patch:
            patch.setattr(session._networks.decoder.session, "run", failing)
            with pytest.raises(NetworkError, match="gone"):
                session.undo()
        assert session.clicks == (Click(5, 5), Click(30, 20))
        assert session._state is learned
        np.testing.assert_array_equal(session.mask, mask)


def _without_t(state: dict[str, np.ndarray]) -> None:
    del state["t"]


def _negative_t(state: dict[str, np.ndarray]) -> None:
    state["t"] = np.array(-1)


def _fractional_steps(state: dict[str, np.ndarray]) -> None:
    state["steps"] = np.array(0.5)


def _negative_moment(state: dict[str, np.ndarray]) -> None:
    name = next(name for name in state if name.startswith("second."))
    state[name] = state[name] - 1


def _missing_weight(state: dict[str, np.ndarray]) -> None:
    del state[next(name for name in state if name.startswith("weight."))]


@pytest.mark.parametrize(
    "damage", [_without_t, _negative_t, _fractional_steps, _negative_moment, _missing_weight], ids=lambda f: f.__name__
)
def test_a_damaged_state_is_refused(
    bundle: Path, rgb: np.ndarray, damage: Callable[[dict[str, np.ndarray]], None]
) -> None:
    with opened(bundle, rgb) as session:
        session.click(5, 5)
        session.accept()
        before = session.state()
        session.click(30, 20)
        state = session.state()
        damage(state)
        with pytest.raises(BundleError, match="start anew"):
            session.restore(state)
        assert session.clicks == (Click(30, 20),)
        session.reset()
        assert_same({**session.state(), "steps": before["steps"]}, before)


def test_where_nothing_is_known_no_step_is_taken(bundle: Path, rgb: np.ndarray) -> None:
    with opened(bundle, rgb, click_adaptation="C", erosions=256, click_mask=False) as session:
        session.click(5, 5)
        mask = session.mask
        assert mask is not None
        assert 0 < mask.mean() < 1  # of a whole or an empty mask, erosion leaves one side
        learned = session._state
        session.accept()
        assert session._state is learned


def test_a_decoder_without_a_name_is_refused(bundle: Path, rgb: np.ndarray, tmp_path: Path) -> None:
    with opened(bundle, rgb) as session:
        session.save_decoder(tmp_path / "own.safetensors")
        for make in (lambda: session.use(""), lambda: session.load_decoder("", tmp_path / "own.safetensors")):
            with pytest.raises(InputError, match="needs a name"):
                make()
        assert session.decoders == ("base",)


def test_networks_are_closed_when_a_session_does_not_open(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def kept(*given: Any) -> Any:
        made.append(open_networks(*given))
        return made[-1]

    open_networks = interactive.open_networks  # type: ignore[attr-defined]
    monkeypatch.setattr(interactive, "open_networks", kept)
    with pytest.raises(InputError, match="cache_images"):
        maskrt.open_interactive(bundle, cache_images=0)
    assert made[0].encoder._session is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("provider", ["ort-tensorrt", "ort-tensorrt:1"])
def test_engines_that_keep_their_weights_are_refused(bundle: Path, provider: str) -> None:
    with pytest.raises(InputError, match=f"^{provider} builds weights into .* use --provider tensorrt or cuda$"):
        maskrt.open_interactive(bundle, provider)


def test_predict_leaves_the_object_alone(bundle: Path, rgb: np.ndarray) -> None:
    with opened(bundle, rgb, click_adaptation="off") as session:
        alone = session.click(5, 5)
        session.box(1, 1, 30, 30)
        mask = session.mask
        np.testing.assert_array_equal(session.predict([Click(5, 5)]), alone)
        session.predict([], (3, 3, 9, 9))
        np.testing.assert_array_equal(session.mask, mask)
        assert session.steps == 0
        for clicks, box in (([], None), ([Click(70, 0)], None), ([], (5, 5, 4, 9)), ([], (0, 0, 70, 9))):
            with pytest.raises(InputError):
                session.predict(clicks, box)
