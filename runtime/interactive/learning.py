"""What a mask decoder has learnt, and the step by which it learns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats
from maskrt.runtime.engines.device_tensor import Tensor
from maskrt.runtime.engines.session import Session
from maskrt.runtime.errors import NotFinite

# Names and numbers that the step's graph and whoever runs it agree on.
BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, PyTorch's defaults
# Of a weight's name, what comes before it: Adam's two moments among the inputs, and everything among the outputs.
FIRST, SECOND, NEXT = "first.", "second.", "next."
# After weights, moments and prompt.
STEP_INPUTS = ("choice", "rows", "columns", "cell_rows", "cell_columns", "target", "step_size", "correction")
UPSCALED = 4  # low-res pixels of a cell of the embedding, along each axis

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class AdamState:
    """A decoder's weights with Adam's moments, by name. Its tensors are never changed: a step makes others.

    t: steps that the moments have seen. steps, skipped: taken, and left out since a gradient was not finite; what is
    undone after an object is counted too.
    """

    weights: Tensors
    first: Tensors
    second: Tensors
    t: int = 0
    steps: int = 0
    skipped: int = 0

    @classmethod
    def fresh(cls, weights: Tensors) -> "AdamState":
        """Weights that have learnt nothing: moments of zeros."""
        zeros = {name: np.zeros(value.shape, np.float32) for name, value in weights.items()}
        return cls(weights, zeros, zeros)

    def back_to(self, earlier: "AdamState") -> "AdamState":
        """The weights, moments and t of before; the counters as they are."""
        return replace(earlier, steps=self.steps, skipped=self.skipped)


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """What a step learns from.

    feeds: the inputs of the click decoder, as it was asked. choice: number of the mask that learns. rows float32
    [R, l], columns [C, l]: weights of a grid's pixels, see maskrt.runtime.sam.interpolation. target float32 [R, C]: 1, 0,
    or -1 where nothing is known.
    """

    feeds: Tensors
    choice: int
    rows: Floats
    columns: Floats
    target: Floats


@dataclass(frozen=True)
class AdamStep:
    """Takes steps of Adam in the graph `step` of a bundle.

    Source: torch.optim.Adam; the step's size and the correction of the second moment are computed in Python floats, as
    there.
    """

    session: Session
    masks: int = field(default=4, init=False)  # the click decoder's

    def __call__(self, learned: AdamState, lesson: TrainingExample, learning_rate: float) -> AdamState:
        """After one step; where the loss or a gradient is not finite, as before it, and one more skipped.

        Raises:
            NetworkError: the graph failed.
        """
        t = learned.t + 1
        feeds: dict[str, Tensor] = {
            **learned.weights,
            **{FIRST + name: value for name, value in learned.first.items()},
            **{SECOND + name: value for name, value in learned.second.items()},
            **lesson.feeds,
            "choice": np.eye(self.masks, dtype=np.float32)[lesson.choice],
            "rows": lesson.rows,
            "columns": lesson.columns,
            "cell_rows": cells_of(lesson.rows),
            "cell_columns": cells_of(lesson.columns),
            "target": lesson.target,
            "step_size": np.array(learning_rate / (1 - BETAS[0] ** t), np.float32),
            "correction": np.array(math.sqrt(1 - BETAS[1] ** t), np.float32),
        }
        # What is learnt stays where the engine computes it; the norm tells whether every part of it is finite.
        keep = [name for name in self.session.outputs if name.startswith(NEXT)]
        try:
            outputs = self.session.run(feeds, check=("loss", "gradient_norm"), keep_on_device=keep)
        except NotFinite:
            return replace(learned, skipped=learned.skipped + 1)
        names = list(learned.weights)
        return AdamState(
            weights={name: outputs[NEXT + name] for name in names},
            first={name: outputs[NEXT + FIRST + name] for name in names},
            second={name: outputs[NEXT + SECOND + name] for name in names},
            t=t,
            steps=learned.steps + 1,
            skipped=learned.skipped,
        )


def cells_of(weights: Floats) -> NDArray[np.int64]:
    """The cells of the embedding that a grid's pixels are interpolated from, ascending; one where there is none.

    Args:
        weights: float32 [R, l] along one axis.
    """
    used = weights.reshape(len(weights), -1, UPSCALED).any(axis=(0, 2))
    return np.flatnonzero(used) if used.any() else np.zeros(1, np.int64)
