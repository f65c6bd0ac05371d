"""Sessions on an exported SAM of random weights, against PyTorch, SamPredictor's post-processing, and themselves."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import maskrt
from maskrt.export.bundles.sams import read_sam
from maskrt.export.graphs.click_decoder import PlainClickDecoder
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.interactive.prompts import pruned
from maskrt.runtime.interactive.session import InteractiveSession

OFF: dict[str, Any] = {"click_adaptation": "off", "result_mask": "off", "click_mask": False}


@pytest.fixture
def tiny(tiny_interactive: tuple[Path, tuple[str, ...]]) -> Path:
    return tiny_interactive[0]


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.random.default_rng().integers(0, 256, (45, 70, 3), np.uint8)


def opened(tiny: Path, cache_images: int = 16, cache_dir: Path | None = None, **settings: Any) -> InteractiveSession:
    return maskrt.open_interactive(tiny, settings=settings, cache_images=cache_images, cache_dir=cache_dir)


def weights_of(session: InteractiveSession) -> np.ndarray:
    return np.concatenate([np.ravel(session._state.weights[name]) for name in sorted(session._base)])


def test_twenty_steps_are_those_of_torch_adam(tiny_interactive: tuple[Path, tuple[str, ...]]) -> None:
    said = [line for line in tiny_interactive[1] if "torch.optim.Adam" in line]
    slow, fast = (list(map(float, re.findall(r"\d\.\de-\d\d", line))) for line in said)
    for single, row, own, own_row in (slow, fast):
        assert single < max(1e-6, 2 * own)
        assert row < max(1e-6, 2 * own_row)


def test_a_click_and_a_second_answer_as_pytorch(tiny: Path, rgb: np.ndarray) -> None:
    sam, _ = read_sam(f"custom:{tiny.parent / 'sam.safetensors'}")
    plain = PlainClickDecoder(sam).eval()
    with opened(tiny, **OFF) as session:
        session.set_image(rgb)
        first, second = session.click(30, 20), session.click(5, 40, positive=False)
        feeds = [answer.feeds for answer in session._answers]
    expected, choices = [], []
    with torch.no_grad():
        for number, fed in enumerate(feeds):
            masks, iou = plain(*(torch.as_tensor(np.asarray(value)) for value in fed.values()))
            choices.append(1 + int(iou[1:].argmax()) if number == 0 else 0)
            low_res = masks[choices[-1]][None, None]
            expected.append((low_res, sam.postprocess_masks(low_res, (41, 64), (45, 70))[0, 0].numpy()))
    np.testing.assert_array_equal(feeds[0]["point_labels"], [[1, -1]])
    np.testing.assert_allclose(feeds[0]["point_coords"][0, 0], [30 * 64 / 70, 20 * 41 / 45], rtol=1e-6)
    np.testing.assert_allclose(feeds[1]["mask_input"], expected[0][0].numpy(), atol=1e-4)
    for found, (_, logits) in zip((first, second), expected, strict=True):
        sure = np.abs(logits) > 1e-4
        assert sure.mean() > 0.9
        np.testing.assert_array_equal(found[sure], (logits > 0)[sure])


@pytest.mark.parametrize("kept", ["R", "C"])
def test_what_clicks_teach_is_undone_or_kept(tiny: Path, rgb: np.ndarray, kept: str) -> None:
    settings = {**OFF, "click_adaptation": kept, "learning_rate": 1e-3}
    with opened(tiny, **settings) as session:
        session.set_image(rgb)
        before = weights_of(session)
        session.click(10, 10)
        after = weights_of(session)
        assert np.abs(after - before).max() == pytest.approx(1e-3, rel=0.01)  # Adam's first step
        session.accept()
        np.testing.assert_array_equal(weights_of(session), before if kept == "R" else after)
        assert session.steps == 1


@pytest.mark.parametrize(("result", "clicks"), [("E", True), ("U", False), ("off", True)])
def test_the_accepted_object_teaches(tiny: Path, rgb: np.ndarray, result: str, clicks: bool) -> None:
    settings = {"click_adaptation": "off", "result_mask": result, "click_mask": clicks, "learning_rate": 1e-3}
    with opened(tiny, **settings) as session:
        session.set_image(rgb)
        before = weights_of(session)
        mask = session.click(10, 10)
        np.testing.assert_array_equal(weights_of(session), before)
        np.testing.assert_array_equal(session.accept(), mask)
        assert 0 < np.abs(weights_of(session) - before).max() < 1.1e-3
        assert session.clicks == ()
        assert session.mask is None


@pytest.mark.parametrize("kept", ["R", "C"])
@pytest.mark.parametrize("clicks", [True, False])
def test_an_object_given_up_teaches_its_clicks_alone(tiny: Path, rgb: np.ndarray, kept: str, clicks: bool) -> None:
    settings = {"click_adaptation": kept, "click_mask": clicks, "learning_rate": 1e-3}

    def taught(result_mask: str, end: Callable[[InteractiveSession], object]) -> np.ndarray:
        with opened(tiny, result_mask=result_mask, **settings) as session:
            session.set_image(rgb)
            session.click(10, 10)
            session.click(50, 30, positive=False)
            end(session)
            assert (session.clicks, session.mask) == ((), None)
            return weights_of(session)

    given_up = taught("E", InteractiveSession.give_up)
    np.testing.assert_array_equal(given_up, taught("off", InteractiveSession.accept))
    assert (given_up != taught("E", InteractiveSession.accept)).any()


@pytest.mark.parametrize(("kept", "moves"), [("R", False), ("C", True), ("off", False)])
def test_an_object_given_up_without_learning(tiny: Path, rgb: np.ndarray, kept: str, moves: bool) -> None:
    """No last step; what single clicks taught stays where it is kept anyway."""
    with opened(tiny, click_adaptation=kept, click_mask=True, learning_rate=1e-3) as session:
        before = weights_of(session)
        session.set_image(rgb)
        session.click(10, 10)
        after_click = weights_of(session)
        session.give_up(learn=False)
        assert (session.clicks, session.mask) == ((), None)
        np.testing.assert_array_equal(weights_of(session), after_click if moves else before)
        assert (after_click != before).any() == (kept != "off")
        assert session.steps == (0 if kept == "off" else 1)


def test_nothing_to_give_up(tiny: Path, rgb: np.ndarray) -> None:
    with opened(tiny) as session, pytest.raises(InputError, match="nothing to give up: click on the object first"):
        session.give_up()


def test_an_accepted_mask_may_teach_at_a_rate_of_its_own(tiny: Path, rgb: np.ndarray) -> None:
    with opened(tiny, learning_rate=1e-3, mask_learning_rate=1e-5) as session:
        session.set_image(rgb)
        before = weights_of(session)
        session.click(10, 10)
        assert np.abs(weights_of(session) - before).max() == pytest.approx(1e-3, rel=0.01)  # Adam's first step
        session.accept()
        assert np.abs(weights_of(session) - before).max() == pytest.approx(1e-5, rel=0.02)


def test_undo_computes_what_was(tiny: Path, rgb: np.ndarray) -> None:
    with opened(tiny, learning_rate=1e-3) as session:
        session.set_image(rgb)
        first = session.click(10, 10)
        once = weights_of(session)
        session.click(60, 40, positive=False)
        session.box(3, 4, 50, 30)
        session.undo()
        np.testing.assert_array_equal(session.undo(), first)
        np.testing.assert_array_equal(weights_of(session), once)
        assert session.undo() is None
        np.testing.assert_array_equal(
            weights_of(session), np.concatenate([np.ravel(session._base[n]) for n in sorted(session._base)])
        )


def test_a_step_that_is_not_finite_changes_nothing(tiny: Path, rgb: np.ndarray) -> None:
    with opened(tiny, learning_rate=1e-3, click_adaptation="off") as session:
        session.set_image(rgb)
        session.click(10, 10)
        session._answers[-1].feeds["image_embeddings"] = np.full((1, 32, 4, 4), np.nan, np.float32)
        before = weights_of(session)
        session.accept()
        np.testing.assert_array_equal(weights_of(session), before)
        assert (session.steps, session.skipped_steps) == (0, 1)


def test_each_class_has_its_decoder_and_file(tiny: Path, rgb: np.ndarray, tmp_path: Path) -> None:
    with opened(tiny, learning_rate=1e-3) as session:
        session.set_image(rgb)
        base = weights_of(session)
        session.use("cable")
        session.click(10, 10)
        with pytest.raises(InputError, match="under way"):
            session.use("tube")
        session.accept()
        learnt = weights_of(session)
        session.save_decoder(tmp_path / "new" / "cable.safetensors")
        session.use("base")
        np.testing.assert_array_equal(weights_of(session), base)
        session.load_decoder("again", tmp_path / "new" / "cable.safetensors")
        session.use("again")
        np.testing.assert_array_equal(weights_of(session), learnt)
        assert session.decoders == ("base", "cable", "again")


def test_a_foreign_or_damaged_decoder_is_refused(tiny: Path, rgb: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "cable.safetensors"
    with opened(tiny) as session:
        session.save_decoder(file)
        good = file.read_bytes()
        for bad, reason in (
            (good.replace(session._base_sha256.encode(), b"0" * 64), "another bundle"),
            (good[:-5], "cannot be read"),
            (b"", "cannot be read"),
            (good + bytes(2 << 20), "larger"),
            (good[:-4] + np.float32(np.nan).tobytes(), "NaN"),
        ):
            file.write_bytes(bad)
            with pytest.raises(BundleError, match=reason):
                session.load_decoder("x", file)
        assert session.decoders == ("base",)


def test_state_goes_back_and_is_left_alone(tiny: Path, rgb: np.ndarray) -> None:
    with opened(tiny, learning_rate=1e-3) as session:
        start = session.state()
        copies = {name: value.copy() for name, value in start.items()}
        session.set_image(rgb)
        masks = []
        for _ in range(2):
            session.restore(start)
            masks.append([session.click(10, 10), session.click(40, 30), session.accept(), session.click(9, 9)])
            session.reset()
        for found, again in zip(*masks, strict=True):
            np.testing.assert_array_equal(found, again)
        for name, value in copies.items():
            np.testing.assert_array_equal(start[name], value)


@pytest.mark.parametrize(("x", "y"), [(-1, 0), (70, 0), (0, 45)])
def test_a_click_outside_is_refused(tiny: Path, rgb: np.ndarray, x: int, y: int) -> None:
    with opened(tiny) as session:
        with pytest.raises(InputError, match="no image"):
            session.click(1, 1)
        session.set_image(rgb)
        with pytest.raises(InputError, match="outside"):
            session.click(x, y)
        with pytest.raises(InputError, match="nothing to accept"):
            session.accept()
        with pytest.raises(InputError, match="empty"):
            session.box(5, 5, 4, 9)
        with pytest.raises(InputError, match="RGB"):
            session.set_image(rgb[..., 0])
        assert session.clicks == ()


def test_embeddings_are_kept_and_bounded(tiny: Path, rgb: np.ndarray, tmp_path: Path) -> None:
    with opened(tiny, cache_images=2, cache_dir=tmp_path / "kept") as session:
        for shift in (0, 1, 2, 0):
            session.set_image(np.roll(rgb, shift, 0))
        assert len(session._embeddings) == 2
        files = list((tmp_path / "kept").iterdir())
        assert len(files) == 3
        mask = session.predict([Click(10, 10)])
    files[0].write_bytes(b"damaged")
    with opened(tiny, cache_dir=tmp_path / "kept") as session:
        session.set_image(rgb)
        np.testing.assert_array_equal(session.predict([Click(10, 10)]), mask)


def test_pruned_leaves_the_outline_unknown() -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[5:15, 5:15] = True
    target = pruned(mask, 2)
    assert (target == 1).sum() == 36
    assert target[0, 0] == 0
    assert target[5, 5] == target[4, 8] == -1
    np.testing.assert_array_equal(pruned(mask, 0), mask.astype(np.float32))
