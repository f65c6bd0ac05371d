"""Compare a learning step with PyTorch's: segment_anything's own decoder, autograd, and torch.optim.Adam.

The reference is float64; the distance of PyTorch's own float32 from it is measured too. Single steps decide, each from
the state that float64 has reached; at the smallest rate, steps in a row decide as well. At large rates steps in a row
are only reported, since they drift: Adam divides by the gradient's size, and a ReLU whose input is within a rounding of
0 sends a whole step one way or the other, in PyTorch as here.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maskrt.export.architectures.sam import SamConfig
from maskrt.export.graphs.adaptation import Step
from maskrt.export.graphs.click_decoder import PlainClickDecoder
from maskrt.kernels.arrays import Floats
from maskrt.runtime.bundle.manifest import Parity
from maskrt.runtime.engines.session import Session
from maskrt.runtime.errors import ExportError
from maskrt.runtime.interactive.learning import BETAS
from maskrt.runtime.types import Report

STEPS = 20
RATES = (1e-6, 1e-3)
TOLERANCE = 1e-6  # of |ours - exact| over |exact|, all weights as one vector
AdamTensors = Sequence[NDArray[Any]]  # every weight, then Adam's first moments, then the second


class Distance(NamedTuple):
    """The distance from float64's weights, over their norm. ours: the graph's; own: PyTorch's float32."""

    ours: float
    own: float

    def farther(self, other: "Distance") -> "Distance":
        """Return the larger of each distance."""
        return Distance(max(self.ours, other.ours), max(self.own, other.own))


def check_steps(sam: Any, config: SamConfig, session: Session, name: str, report: Report) -> Parity:
    """Take STEPS steps at each of RATES.

    Args:
        session: the step's graph; name: its file's, for the report.

    Returns:
        The largest differences of a single step.

    Raises:
        ExportError: a single step differs by more than TOLERANCE and by more than rounding explains, or steps in a row
            at the smallest rate do.
    """
    worst = Parity(max_abs=0.0, max_rel=0.0)
    for rate in RATES:
        single, row, max_abs = compare_steps(sam, config, session, rate)
        report(
            f"{name}: a step at {rate:.0e} differs from torch.optim.Adam in float64 by at most {single.ours:.1e} of "
            f"the weights' norm, {STEPS} in a row by {row.ours:.1e}; PyTorch's float32 by {single.own:.1e} and "
            f"{row.own:.1e}"
        )
        decisive = (single, row) if rate == min(RATES) else (single,)
        if not all(apart.ours <= max(TOLERANCE, 2 * apart.own) for apart in decisive):
            raise ExportError(f"{name} does not learn as PyTorch does: report this with the checkpoint's kind")
        worst = Parity(max_abs=max(worst.max_abs, max_abs), max_rel=max(worst.max_rel, single.ours))
    return worst


def compare_steps(sam: Any, config: SamConfig, session: Session, rate: float) -> tuple[Distance, Distance, float]:
    """Return the worst of STEPS single steps, as many in a row, and a weight's largest difference after one step."""
    rng, step = np.random.default_rng(0), Step(sam)
    exact, own = (PlainLearner(sam, rate, dtype) for dtype in (torch.float64, torch.float32))
    own_row, row = PlainLearner(sam, rate), exact.state()
    single, max_abs = Distance(0, 0), 0.0
    for number in range(1, STEPS + 1):
        *prompt, _, _ = step.example(config, 1 + number % 5, *_averages(config, rng), seed=number)[len(row) :]
        start = exact.state()
        own.start_from(start, number - 1)
        for learner in (exact, own, own_row):
            learner.step(prompt)
        ours = _step(session, step, start, prompt, rate, number)
        row = _step(session, step, row, prompt, rate, number)
        truth = exact.weights()
        single = single.farther(Distance(_apart(ours, truth), _apart(own.weights(), truth)))
        largest = (float(np.abs(found - wanted).max()) for found, wanted in zip(ours, truth, strict=False))
        max_abs = max(max_abs, *largest)
    return single, Distance(_apart(row, truth), _apart(own_row.weights(), truth)), max_abs


class PlainLearner:
    """The definition of the step: plain PyTorch."""

    def __init__(self, sam: Any, rate: float, dtype: torch.dtype = torch.float32) -> None:
        self._graph = PlainClickDecoder(copy.deepcopy(sam)).to(dtype)
        self._dtype = dtype
        named = dict(sam.mask_decoder.named_parameters())
        self._names = [f"decoder.{name}" for name in named]
        self._values = [value.detach().to(dtype, copy=True).requires_grad_() for value in named.values()]
        self._optimiser = torch.optim.Adam(self._values, lr=rate)

    def step(self, prompt: Sequence[Tensor]) -> None:
        """Take one step on a prompt and the tensors that STEP_INPUTS names, but for step size and correction."""
        *inputs, choice, rows, columns, _, _, target = (value.to(self._dtype) for value in prompt)
        with torch.enable_grad():
            masks, _ = torch.func.functional_call(
                self._graph, dict(zip(self._names, self._values, strict=True)), tuple(inputs)
            )
            logits = rows @ masks[int(choice.argmax())] @ columns.T
            each = nn.functional.binary_cross_entropy_with_logits(logits, target.clamp(min=0), reduction="none")
            loss = sum(each[target == label].sum() / max(int((target == label).sum()), 1) for label in (1, 0))
            assert isinstance(loss, Tensor)  # and not the 0 that a sum starts with
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has not typed it
        self._optimiser.step()

    def weights(self) -> list[NDArray[Any]]:
        """Return the weights themselves: they change with the next step."""
        return [value.detach().numpy() for value in self._values]

    def state(self) -> list[NDArray[Any]]:
        """Return a copy of weights and moments. A weight's moments are 0 before a step has reached it."""
        moments = [
            self._optimiser.state.get(value, {}).get(kind, torch.zeros_like(value))
            for kind in ("exp_avg", "exp_avg_sq")
            for value in self._values
        ]
        return [value.detach().numpy().copy() for value in (*self._values, *moments)]

    def start_from(self, state: AdamTensors, steps: int) -> None:
        """Continue from a state after `steps` steps. Before the first step its weights are enough."""
        count = len(self._values)
        self._optimiser.state.clear()
        for index, value in enumerate(self._values):
            value.data.copy_(torch.from_numpy(state[index]))
            if steps:
                first, second = (torch.tensor(state[index + kind * count], dtype=self._dtype) for kind in (1, 2))
                taken = torch.tensor(float(steps))
                self._optimiser.state[value] = {"step": taken, "exp_avg": first, "exp_avg_sq": second}


def _step(
    session: Session, step: Step, state: AdamTensors, prompt: Sequence[Tensor], rate: float, number: int
) -> list[NDArray[Any]]:
    size, correction = rate / (1 - BETAS[0] ** number), math.sqrt(1 - BETAS[1] ** number)
    values = [*(np.asarray(value, np.float32) for value in state), *(value.numpy() for value in prompt)]
    values += [np.array(size, np.float32), np.array(correction, np.float32)]
    outputs = session.run(dict(zip(step.inputs, values, strict=True)), check=("loss", "gradient_norm"))
    return [outputs[name] for name in step.outputs[:-2]]


def _apart(found: AdamTensors, truth: AdamTensors) -> float:
    """Return the norm of the weights' difference over the truth's. Further tensors in `found` do not count."""
    squares = [(np.sum((a - b) ** 2), np.sum(b**2)) for a, b in zip(found, truth, strict=False)]
    difference, norm = np.sum(squares, axis=0)
    return float(np.sqrt(difference / norm))


def _averages(config: SamConfig, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Make a grid of averages over the whole mask, rows [4, l] and columns [5, l], so that every cell counts."""
    side = config.low_res_size
    rows, columns = (rng.random((count, side), np.float32) / np.float32(side) for count in (4, 5))
    return rows, columns
