"""The training step of a mask decoder, and the state that it changes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats
from maskrt.runtime.engines.device_tensor import Tensor
from maskrt.runtime.engines.session import Session
from maskrt.runtime.errors import NotFinite

# Names and numbers that the step's graph and its callers share.
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam; PyTorch's defaults
# Prefixes of a weight's name: Adam's two moments among the inputs, and everything among the outputs.
FIRST, SECOND, NEXT = "first.", "second.", "next."
# The inputs after weights, moments and prompt.
STEP_INPUTS = ("choice", "rows", "columns", "cell_rows", "cell_columns", "target", "step_size", "correction")
UPSCALED = 4  # low-res pixels for each cell of the embedding, along each axis

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class AdamState:
    """A decoder's weights and Adam's moments, by name; its tensors are never changed, a step makes new ones.

    t: steps that the moments have seen. steps: steps taken. skipped: steps left out since a gradient was not finite.
    Both count the steps that are undone after an object, too.
    """

    weights: Tensors
    first: Tensors
    second: Tensors
    t: int = 0
    steps: int = 0
    skipped: int = 0

    @classmethod
    def fresh(cls, weights: Tensors) -> "AdamState":
        """Return a state that has learnt nothing: its moments are zero."""
        zeros = {name: np.zeros(value.shape, np.float32) for name, value in weights.items()}
        return cls(weights, zeros, zeros)

    def back_to(self, earlier: "AdamState") -> "AdamState":
        """Return the weights, moments and t of an earlier state with the counters of this one."""
        return replace(earlier, steps=self.steps, skipped=self.skipped)


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """A training example: a prompt, and the target for one of its masks.

    feeds: the click decoder's inputs for this prompt. choice: number of the mask that learns. rows float32 [R, l],
    columns [C, l]: weights of a grid's pixels, see maskrt.runtime.sam.interpolation. target float32 [R, C]: 1, 0, or
    -1 where nothing is known.
    """

    feeds: Tensors
    choice: int
    rows: Floats
    columns: Floats
    target: Floats


@dataclass(frozen=True)
class AdamStep:
    """Adam, which takes its steps in the graph `step` of a bundle.

    Source: torch.optim.Adam; as there, the step size and the correction of the second moment are Python floats.
    """

    session: Session
    masks: int = field(default=4, init=False)  # number of the click decoder's masks

    def __call__(self, state: AdamState, example: TrainingExample, learning_rate: float) -> AdamState:
        """Return the state after one step.

        Where the loss or a gradient is not finite, the state stays as it was and counts one more skipped step.

        Raises:
            NetworkError: the graph failed.
        """
        t = state.t + 1
        feeds: dict[str, Tensor] = {
            **state.weights,
            **{FIRST + name: value for name, value in state.first.items()},
            **{SECOND + name: value for name, value in state.second.items()},
            **example.feeds,
            "choice": np.eye(self.masks, dtype=np.float32)[example.choice],
            "rows": example.rows,
            "columns": example.columns,
            "cell_rows": cells_of(example.rows),
            "cell_columns": cells_of(example.columns),
            "target": example.target,
            "step_size": np.array(learning_rate / (1 - BETAS[0] ** t), np.float32),
            "correction": np.array(math.sqrt(1 - BETAS[1] ** t), np.float32),
        }
        # The new state stays where the engine computes it; the norm shows whether all of it is finite.
        keep = [name for name in self.session.outputs if name.startswith(NEXT)]
        try:
            outputs = self.session.run(feeds, check=("loss", "gradient_norm"), keep_on_device=keep)
        except NotFinite:
            return replace(state, skipped=state.skipped + 1)
        names = list(state.weights)
        return AdamState(
            weights={name: outputs[NEXT + name] for name in names},
            first={name: outputs[NEXT + FIRST + name] for name in names},
            second={name: outputs[NEXT + SECOND + name] for name in names},
            t=t,
            steps=state.steps + 1,
            skipped=state.skipped,
        )


def cells_of(weights: Floats) -> NDArray[np.int64]:
    """Return the embedding's cells from which a grid's pixels are interpolated, ascending; cell 0 where there is none.

    Args:
        weights: float32 [R, l], along one axis.
    """
    used = weights.reshape(len(weights), -1, UPSCALED).any(axis=(0, 2))
    return np.flatnonzero(used) if used.any() else np.zeros(1, np.int64)
