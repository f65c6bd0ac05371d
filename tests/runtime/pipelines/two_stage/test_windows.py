"""Where stage 2 looks, and that sliding windows leave no seams."""

from typing import Any

import numpy as np
import pytest
from tiny_two_stage import Network, level, spec_of

from maskrt.kernels import sets
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec
from maskrt.runtime.pipelines.two_stage.segmenter import TwoStageSegmenter
from maskrt.runtime.pipelines.two_stage.windows import NOTHING_LEFT, find_windows, uncertainty_of

SPEC = spec_of(size=128)  # stage 1's pixels are 8 wide, patches of 32 are 4 of them


def found(logits: np.ndarray, spec: Any = SPEC, working_hw: tuple[int, int] = (128, 128), **settings: Any) -> list[Any]:
    stages = PatchSelectionSpec(**{"patches": 4, **settings})
    return find_windows(logits.astype(np.float32), working_hw, spec, stages, sets.CPU).tolist()


def test_undecidedness(rng: np.random.Generator) -> None:
    two = rng.random((1, 5, 6))
    np.testing.assert_allclose(uncertainty_of(two), 1 - 2 * np.abs(two[0] - 0.5))
    assert uncertainty_of(np.array([[0.0, 0.5, 1.0, 0.25]])).tolist() == [0, 1, 0, 0.5]
    three = np.array([[1 / 3, 1, 0, 0.5], [1 / 3, 0, 0, 0.5], [1 / 3, 0, 1, 0]])
    np.testing.assert_allclose(uncertainty_of(three), [1, 0, 0, np.log(2) / np.log(3)])


def test_logits_and_probabilities_rank_differently() -> None:
    """The public code's score is nearest to a logit of a half, the paper's to a probability of a half."""
    logits = np.full((1, 16, 16), -9.0)
    logits[0, 0:4, 0:4], logits[0, 4:8, 4:8] = 0.5, 0.0
    assert found(logits, patch_count=2) == [[32, 32], [0, 0]]
    assert found(logits, patch_count=2, rank="logit") == [[0, 0], [32, 32]]


def test_budgets() -> None:
    """On 64 x 128: eight patches, of which the first three are uncertainty by 0, 0.1 and 0.3."""
    means = np.full((2, 4), 0.01)
    means[0, :3] = 0.5, 0.6, 0.8
    probabilities = means.repeat(4, axis=0).repeat(4, axis=1)
    logits = np.log(probabilities / (1 - probabilities))[None]
    where = {"working_hw": (64, 128)}
    assert len(found(logits, **where)) == 4  # as many as along the longest side
    assert found(logits, **where, patch_count=2) == [[0, 0], [0, 32]]
    assert len(found(logits, **where, patch_count=16)) == 8
    assert len(found(logits, **where, patch_fraction=0.3)) == 2  # of 2.4
    assert len(found(logits, **where, patch_fraction=0.01)) == 1
    # The resize mixes neighbours, so that the patches are not at 0.6 and 0.8 themselves.
    assert found(logits, **where, uncertainty=0.2) == [[0, 0], [0, 32]]
    assert found(logits, **where, uncertainty=0.0) == []
    assert len(found(logits, **where, uncertainty=0.5)) == 8
    assert found(logits, **where, windows="off") == []


@pytest.mark.parametrize("classes", [2, 4])
def test_sliding_windows_lie_where_stage_1_is_undecided(rng: np.random.Generator, classes: int) -> None:
    planes = 1 if classes == 2 else classes
    logits = np.zeros((planes, 16, 16))
    logits[0] = 20  # sure everywhere, but for a square of 4 at row 5, column 9, and one pixel
    logits[0, 5:9, 9:13] = 0
    logits[0, 1, 1] = 0
    spec = spec_of(classes=classes, size=128)
    # A pixel counts for its window from the first that sees it on: the upper left one.
    assert found(logits, spec, windows="sliding") == [[40, 72], [0, 0]]
    assert found(logits, spec, windows="sliding", patch_count=1) == [[40, 72]]
    assert found(logits, spec, windows="sliding", uncertainty=0.4) == [
        [40, 72]
    ]  # a sixteenth of the other is uncertainty
    logits[0] = 20
    assert found(logits, spec, windows="sliding") == []


def test_sliding_windows_end_where_nothing_is_left() -> None:
    """And are never more than the grid has."""
    logits = np.full((1, 16, 16), 20.0)
    logits[0, 3, 3] = 2 * np.arctanh(1 - NOTHING_LEFT * 16 * 1.01)  # just enough for a window of 16
    assert len(found(logits, windows="sliding", patch_fraction=1.0)) == 1
    logits[0, 3, 3] = 2 * np.arctanh(1 - NOTHING_LEFT * 16 * 0.99)
    assert found(logits, windows="sliding", patch_fraction=1.0) == []
    assert len(found(np.zeros((1, 16, 16)), windows="sliding", uncertainty=0.5)) == 16


@pytest.mark.parametrize("size_hw", [(5, 16), (16, 3), (1, 16)])
def test_pictures_smaller_than_a_window(size_hw: tuple[int, int]) -> None:
    """Windows are clamped into the picture, or begin at its border and are padded."""
    working = size_hw[0] * 8, size_hw[1] * 8
    windows = found(np.zeros((1, *size_hw)), working_hw=working, windows="sliding", patch_fraction=1.0)
    assert windows
    for top, left in windows:
        assert (0 <= top <= working[0] - 32) or (working[0] < 32 and top == 0)
        assert (0 <= left <= working[1] - 32) or (working[1] < 32 and left == 0)


def test_sliding_windows_leave_no_seams() -> None:
    """Stage 1 says a half everywhere uncertainty, stage 2 says 1: no step in the blend is larger than the ramp's."""

    def low(pictures: np.ndarray) -> np.ndarray:
        logits = np.full((len(pictures), 1, *pictures.shape[2:]), 0.0)
        logits[:, :, :, 11:] = -20
        return logits

    stages = PatchSelectionSpec(patches=2, windows="sliding", patch_count=3)
    segmenter = TwoStageSegmenter(Network(low), Network(level(20)), SPEC, stages)  # type: ignore[arg-type]
    rgb = np.zeros((128, 128, 3), np.uint8)
    (look,), (first,) = segmenter.look([rgb], {}), segmenter.first_stage()([rgb])
    assert len(look.stages.windows_xywh) > 1
    gain = look.probabilities[1] - first[1]
    ramp = 64 // 8
    assert gain.max() > 0.49
    assert np.abs(np.diff(gain, axis=1)).max() < 1.1 / ramp
    # At the picture's border nothing fades.
    left, top, _, _ = look.stages.windows_xywh[0]
    assert (left, top) == (0, 0)
    np.testing.assert_allclose(look.probabilities[1, :30, :30], 1, atol=1e-6)
    # The grid's patches have their seams.
    grid = TwoStageSegmenter(Network(low), Network(level(20)), SPEC, PatchSelectionSpec(patches=2, patch_count=1))
    assert np.abs(np.diff(grid([rgb])[0][1], axis=0)).max() > 0.4


def test_windows_between_the_pixels_of_a_picture_that_does_not_divide() -> None:
    """431 x 768 makes 54 x 96 of stage 1's pixels, 7.98 x 8 each."""
    spec, logits = spec_of(size=768), np.full((1, 54, 96), 20.0)
    logits[0, 42:54, 30:42] = 0
    ((top, left),) = found(logits, spec, (431, 768), patches=8, windows="sliding")
    assert (top, left) == (431 - 96, 240)
