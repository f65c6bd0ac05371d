"""A part of a mask, drawn where the loss looks, against the whole mask."""

from collections.abc import Sequence

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from tiny_interactive import TINY  # noqa: E402

from maskrt.export.adaptation import Step  # noqa: E402
from maskrt.export.click_decoder import ClickDecoder, PartOfMask  # noqa: E402
from maskrt.export.sam import build_sam  # noqa: E402
from maskrt.runtime.adaptation import STEP_INPUTS, cells_of  # noqa: E402
from maskrt.runtime.interpolation import grid_weights  # noqa: E402

SIDE = TINY.image_size


@pytest.mark.parametrize(
    ("rows", "columns"),
    [([0], [SIDE - 1]), ([5, 60, 6], [37]), (range(SIDE), range(SIDE)), (range(SIDE // 2), [SIDE // 2] * 3)],
    ids=["corner", "clicks", "everything", "one column"],
)
def test_a_part_is_what_the_whole_says(rows: Sequence[int], columns: Sequence[int]) -> None:
    torch.manual_seed(0)
    sam = build_sam(TINY).requires_grad_(False)
    step = Step(sam)
    for choice in range(4):
        values = step.example(TINY, 3, rows, columns, seed=choice)[3 * len(step.weights) : -3]
        prompt, selected = values[: -len(STEP_INPUTS) + 3], values[-len(STEP_INPUTS) + 3 :]
        assert int(selected[0].argmax()) == choice
        masks, _ = ClickDecoder(sam)(*prompt)
        whole = selected[1] @ masks[choice] @ selected[2].T
        part = PartOfMask(sam)(*prompt, *selected)
        torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


def test_cells_are_all_that_have_a_weight(rng: np.random.Generator) -> None:
    weights = grid_weights(32, 128, 100)
    for _ in range(20):
        pixels = rng.choice(100, rng.integers(1, 6))
        low_res = np.flatnonzero(weights[pixels].any(0))
        assert cells_of(weights[pixels]).tolist() == sorted({int(place) // 4 for place in low_res})


def test_cells_of_nothing_are_one() -> None:
    assert cells_of(np.zeros((2, 32), np.float32)).tolist() == [0]
