"""A part of a mask, drawn where the loss looks, against the whole mask."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from tiny_interactive import TINY

from maskrt.export.architectures.sam import build_sam
from maskrt.export.graphs.adaptation import Step, write_step
from maskrt.export.graphs.click_decoder import ClickDecoder, PartOfMask, PlainClickDecoder
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.interactive.learning import BETAS, FIRST, NEXT, STEP_INPUTS, cells_of
from maskrt.runtime.sam.interpolation import grid_weights

SIDE = TINY.image_size


GRIDS: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    "corner": ([0], [SIDE - 1]),
    "clicks": ([5, 60, 6], [37]),
    "everything": (range(SIDE), range(SIDE)),
    "one column": (range(SIDE // 2), [SIDE // 2] * 3),
}


@pytest.mark.parametrize(("rows", "columns"), GRIDS.values(), ids=GRIDS)
def test_a_part_is_what_the_whole_says(rows: Sequence[int], columns: Sequence[int]) -> None:
    torch.manual_seed(0)
    sam = build_sam(TINY).requires_grad_(False)
    step = Step(sam)
    for choice in range(4):
        values = step.example(TINY, 3, *_grid(rows, columns), seed=choice)[3 * len(step.weights) : -3]
        prompt, selected = values[: -len(STEP_INPUTS) + 3], values[-len(STEP_INPUTS) + 3 :]
        assert int(selected[0].argmax()) == choice
        masks, _ = ClickDecoder(sam)(*prompt)
        whole = selected[1] @ masks[choice] @ selected[2].T
        part = PartOfMask(sam)(*prompt, *selected)
        torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.export
def test_the_exported_gradient_is_autograds(tmp_path: Path) -> None:
    """Every grid is tried; after the first step the first moment is a tenth of the gradient."""
    torch.manual_seed(0)
    sam = build_sam(TINY).requires_grad_(False)
    step, plain = Step(sam), PlainClickDecoder(copy.deepcopy(sam)).double()
    write_step(sam, TINY, tmp_path / "step.onnx")
    with open_session(tmp_path / "step.onnx") as session:
        for seed, (rows, columns) in enumerate(GRIDS.values()):
            values = step.example(TINY, 2 + seed, *_grid(rows, columns), seed)  # type: ignore[arg-type, call-arg]
            values[-3] = torch.randint(0, 2, values[-3].shape).float()
            found = session.run({name: value.numpy() for name, value in zip(step.inputs, values, strict=True)})
            ours = [found[NEXT + FIRST + name].ravel() / (1 - BETAS[0]) for name in step.weights]
            *prompt, choice, over, across, _, _, target = (value.double() for value in values[3 * len(ours) : -2])
            learnt = [value.double().requires_grad_() for value in step.weights.values()]
            named = dict(zip((f"decoder.{name}" for name in step.weights), learnt, strict=True))
            masks, _ = torch.func.functional_call(plain, named, tuple(prompt))
            logits = over @ masks[int(choice.argmax())] @ across.T
            each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
            loss = sum(each[target == label].sum() / max(int((target == label).sum()), 1) for label in (0, 1))
            theirs = [value.numpy().ravel() for value in torch.autograd.grad(loss, learnt, materialize_grads=True)]
            difference = np.linalg.norm(np.concatenate(ours) - np.concatenate(theirs))
            assert difference < 1e-5 * np.linalg.norm(np.concatenate(theirs))
            assert found["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


def _grid(rows: Sequence[int], columns: Sequence[int]) -> list[NDArray[np.float32]]:
    weights = grid_weights(TINY.low_res_size, SIDE, SIDE)
    return [np.ascontiguousarray(weights[list(pixels)]) for pixels in (rows, columns)]


def test_cells_are_all_that_have_a_weight(rng: np.random.Generator) -> None:
    weights = grid_weights(32, 128, 100)
    for _ in range(20):
        pixels = rng.choice(100, rng.integers(1, 6))
        low_res = np.flatnonzero(weights[pixels].any(0))
        assert cells_of(weights[pixels]).tolist() == sorted({int(place) // 4 for place in low_res})


def test_cells_of_nothing_are_one() -> None:
    assert cells_of(np.zeros((2, 32), np.float32)).tolist() == [0]
