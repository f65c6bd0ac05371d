"""Chooses where stage 2 looks: the windows of a working picture where stage 1 is most uncertain."""

from collections.abc import Callable

import numpy as np

from maskrt.kernels.arrays import Doubles, Floats, Indices
from maskrt.kernels.patches.reference import STEP, grid_of
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec, TwoStageSpec, patch_side
from maskrt.runtime.pipelines.two_stage.network import RANKED, probabilities

Corners = Indices  # [K, 2], top and left
Size = tuple[int, int]

NOTHING_LEFT = 0.01  # a sliding window with a lower mean uncertainty is not worth a look
# `windows` -> the share of a window's side over which it fades towards a border; 0: nothing fades.
RAMPS = {"grid": 0.0, "sliding": 1 / 8, "off": 0.0}


def find_windows(
    logits: Floats, working_hw: Size, spec: TwoStageSpec, stages: PatchSelectionSpec, kernels: KernelSet
) -> Corners:
    """Return the corners of the windows to look at again, the most uncertain first.

    Args:
        logits: float32 [C or 1, h, w], stage 1's logits of the picture without padding.
        working_hw: the working picture's size.

    Returns:
        int64 [K, 2], top and left in pixels of the working picture.
    """
    return FINDERS[stages.windows](logits, working_hw, spec, stages, kernels)


def _grid(
    logits: Floats, working_hw: Size, spec: TwoStageSpec, stages: PatchSelectionSpec, kernels: KernelSet
) -> Corners:
    """Choose the grid's patches with the most uncertain mean; of equal ones the first in reading order."""
    side = patch_side(spec, stages)
    grid = grid_of(working_hw, side)
    values = RANKED[stages.rank](logits)
    means = np.empty((len(values), *grid), np.float64)
    kernels.patch_means(values, working_hw, side, means)
    # Rounded, so that patches whose means differ by rounding errors are equal, however the means are computed.
    scores = np.rint(uncertainty_of(means).ravel() / STEP)
    order = np.argsort(-scores, kind="stable")[: stages.budget(scores.size)]
    if stages.uncertainty is not None:
        order = order[scores[order] * STEP >= _least(stages.uncertainty)]
    corners: Corners = np.stack(np.unravel_index(order, grid), axis=1).astype(np.int64) * side
    return corners


def _sliding(
    logits: Floats, working_hw: Size, spec: TwoStageSpec, stages: PatchSelectionSpec, kernels: KernelSet
) -> Corners:
    """Choose windows on stage 1's pixels greedily, by the uncertainty under them that no window covers yet.

    There are never more than the grid has patches. A window is side / shrink of stage 1's pixels wide, rounded half up.
    """
    side = patch_side(spec, stages)
    cells = max(1, (2 * side + spec.shrink) // (2 * spec.shrink))
    uncertainty = np.ascontiguousarray(np.clip(uncertainty_of(probabilities(logits).astype(np.float64)), 0, 1))
    least = NOTHING_LEFT if stages.uncertainty is None else max(NOTHING_LEFT, _least(stages.uncertainty))
    rows, columns = grid_of(working_hw, side)
    chosen: Corners = kernels.choose_windows(uncertainty, cells, stages.budget(rows * columns), least)
    scale = np.array(working_hw) / uncertainty.shape
    last = np.maximum(0, np.array(working_hw) - side)
    corners: Corners = np.minimum((chosen * scale + 0.5).astype(np.int64), last)
    return corners


def _off(
    logits: Floats, working_hw: Size, spec: TwoStageSpec, stages: PatchSelectionSpec, kernels: KernelSet
) -> Corners:
    return np.zeros((0, 2), np.int64)


def uncertainty_of(values: Doubles) -> Doubles:
    """Return the uncertainty, from 0 (sure) to 1.

    With two classes it is 1 - |2 p - 1|, with more the entropy divided by its largest value.

    Args:
        values: float64 [1, ...], the probability of one class of two; or [C, ...], of all classes, which sum to 1.

    Returns:
        float64 [...]; below 0 for a value that is no probability, such as a logit of rank=logit.
    """
    if len(values) == 1:
        return np.asarray(1 - np.abs(2 * values[0] - 1))
    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    return np.asarray(-(values * logs).sum(axis=0) / np.log(len(values)))


def _least(uncertainty: float) -> float:
    """Return uncertainty_of a mean that is `uncertainty` away from a half."""
    return 1 - 2 * uncertainty


FINDERS: dict[str, Callable[[Floats, Size, TwoStageSpec, PatchSelectionSpec, KernelSet], Corners]] = {
    "grid": _grid,
    "sliding": _sliding,
    "off": _off,
}
