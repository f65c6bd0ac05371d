"""The sizes at which the networks of a two-stage segmenter run."""

from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec, TwoStageSpec, largest_low, patch_side
from maskrt.runtime.engines.axes import EVERY, Inputs, Range
from maskrt.runtime.pipelines.two_stage.network import at_a_time


def stage_1_inputs(spec: TwoStageSpec) -> Inputs:
    """Return the axes of stage 1: always its longest side with fit=square, else anything up to it for both sides."""
    largest = largest_low(spec)
    sides: Range = (largest if spec.fit == "square" else spec.multiple, largest, largest)
    return {EVERY: {0: (1, 1, at_a_time(largest)), 2: sides, 3: sides}}


def stage_2_inputs(spec: TwoStageSpec, selection: PatchSelectionSpec) -> Inputs:
    """Return the axes of stage 2, which sees a batch of patches."""
    side = patch_side(spec, selection)
    most = at_a_time(side)
    sides: Range = (side, side, side)
    usual = min(most, selection.budget(selection.patches**2))
    return {EVERY: {0: (1, usual, most), 2: sides, 3: sides}}
