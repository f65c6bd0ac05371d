"""One learning step as an ONNX graph: loss, gradient, and Adam on every weight of SAM's mask decoder.

The weights and Adam's moments go in and come out. The loss is the source document's equation 2 on any grid of pixels:
`rows` and `columns` are the weights with which a pixel is interpolated from the low-res mask, so that the few pixels
under clicks cost next to nothing, and a whole picture is two matrix products.

Source: Schön et al. 2024, "Adapting the Segment Anything Model During Usage in Novel Situations", section 3.3;
torch.optim.Adam for the roundings.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad_and_value
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from maskrt.export.architectures.sam import SamConfig
from maskrt.export.graph_tools.graph import Axes, write_graph
from maskrt.export.graphs.click_decoder import PartOfMask
from maskrt.export.graphs.decoder import DECODER_INPUTS
from maskrt.kernels.arrays import Floats
from maskrt.runtime.interactive.learning import BETAS, EPSILON, FIRST, NEXT, SECOND, STEP_INPUTS, cells_of

MAX_POINTS, MAX_GRID = 1024, 4096
AXES: dict[str, Axes] = {
    "point_coords": {1: ("points", MAX_POINTS)},
    "point_labels": {1: ("points", MAX_POINTS)},
    "rows": {0: ("grid_rows", MAX_GRID)},
    "columns": {0: ("grid_columns", MAX_GRID)},
    "target": {0: ("grid_rows", MAX_GRID), 1: ("grid_columns", MAX_GRID)},
    "cell_rows": {0: ("cell_rows", MAX_GRID)},
    "cell_columns": {0: ("cell_columns", MAX_GRID)},
}
# Sizes of the traced example that nothing else in the graph has, so that they stay axes.
POINTS, ROWS, COLUMNS, CELL_ROWS, CELL_COLUMNS = 14, 23, 29, 11, 13


def sparse_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of the foreground's pixels, plus that of the background's; equation 2.

    Args:
        logits: [R, C]; target: [R, C], 1 foreground, 0 background, anything else unknown.
    """
    foreground, background = (target == 1).to(logits.dtype), (target == 0).to(logits.dtype)
    # PyTorch's own cross-entropy leaves an operator in its traced gradient that ONNX does not have.
    cross_entropy = logits.relu() - logits * foreground + (-logits.abs()).exp().log1p()
    one = torch.ones(())
    loss = sum((cross_entropy * known).sum() / torch.maximum(known.sum(), one) for known in (foreground, background))
    assert isinstance(loss, Tensor)  # and not the 0 that a sum starts with
    return loss


class Step:
    """The step as a function of tensors: inputs and outputs are lists in the order of `inputs` and `outputs`."""

    def __init__(self, sam: Any) -> None:
        self._graph = PartOfMask(sam)
        self.weights = {name: value.detach().clone() for name, value in sam.mask_decoder.named_parameters()}
        names = list(self.weights)
        self.inputs = [*names, *(FIRST + n for n in names), *(SECOND + n for n in names), *DECODER_INPUTS, *STEP_INPUTS]
        self.outputs = [*(NEXT + n for n in names), *(NEXT + FIRST + n for n in names)]
        self.outputs += [*(NEXT + SECOND + n for n in names), "loss", "gradient_norm"]

    def __call__(self, *values: Tensor) -> tuple[Tensor, ...]:
        count = len(self.weights)
        weights, first, second = (list(values[i * count : (i + 1) * count]) for i in range(3))
        *prompt, step_size, correction = values[3 * count :]
        gradient, loss = grad_and_value(self._loss)(weights, *prompt)
        (decay_1, decay_2) = BETAS
        first = [m + (g - m) * (1 - decay_1) for m, g in zip(first, gradient, strict=True)]
        second = [v * decay_2 + g * g * (1 - decay_2) for v, g in zip(second, gradient, strict=True)]
        # Numerator and denominator over EPSILON: a sum with 1e-8 would be treated as one with 0, and left out.
        weights = [
            w - m * (step_size / EPSILON) / (v.sqrt() / (correction * EPSILON) + 1)
            for w, m, v in zip(weights, first, second, strict=True)
        ]
        squares = sum((g * g).sum() for g in gradient)
        return *weights, *first, *second, loss, torch.as_tensor(squares).sqrt()

    def _loss(self, weights: list[Tensor], *values: Tensor) -> Tensor:
        *inputs, target = values
        named = {f"decoder.{name}": value for name, value in zip(self.weights, weights, strict=True)}
        return sparse_loss(functional_call(self._graph, named, tuple(inputs)), target)

    def example(self, config: SamConfig, points: int, rows: Floats, columns: Floats, seed: int = 0) -> list[Tensor]:
        """Return random inputs for a grid of rows [R, l] and columns [C, l]; weights are as they are, moments 0."""
        random = torch.Generator().manual_seed(seed)
        side = config.low_res_size
        # A tensor of its own for every input: the exporter takes one tensor for one input.
        zeros = [torch.zeros_like(value) for _ in range(2) for value in self.weights.values()]
        return [
            *self.weights.values(), *zeros,
            torch.randn(config.embedding_shape, generator=random),
            torch.rand(1, points, 2, generator=random) * config.image_size,
            torch.randint(-1, 4, (1, points), generator=random).float(),
            torch.randn(1, 1, side, side, generator=random),
            torch.ones(1),
            torch.eye(4)[seed % 4],
            torch.from_numpy(rows),
            torch.from_numpy(columns),
            torch.from_numpy(cells_of(rows)),
            torch.from_numpy(cells_of(columns)),
            torch.randint(-1, 2, (len(rows), len(columns)), generator=random).float(),
            torch.tensor(1e-6),
            torch.tensor(0.5),
        ]  # fmt: skip


def write_step(sam: Any, config: SamConfig, path: Path) -> None:
    """Export the step. maskrt.export.bundles.step_parity compares it with torch.optim.Adam."""
    step = Step(sam)
    rows, columns = (np.zeros((count, config.low_res_size), np.float32) for count in (ROWS, COLUMNS))
    example = step.example(config, POINTS, rows, columns)
    for name, count in (("cell_rows", CELL_ROWS), ("cell_columns", CELL_COLUMNS)):
        example[step.inputs.index(name)] = torch.zeros(count, dtype=torch.int64)
    traced = _trace(step, example)
    write_graph(_Traced(traced), tuple(example), path, step.inputs, step.outputs, AXES)


def _trace(step: Step, example: Sequence[Tensor]) -> nn.Module:
    """Trace the step with its gradient written out in plain operators, for any size of the axes in AXES."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)

    def fake(name: str, value: Tensor) -> Tensor:
        axes: Mapping[int, Any] = AXES.get(name, {})
        # DUCK: axes of one size in the example are one axis.
        sizes = [DimDynamic.DUCK if axis in axes else DimDynamic.STATIC for axis in range(value.dim())]
        return mode.from_tensor(value, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))

    fakes = [fake(name, value) for name, value in zip(step.inputs, example, strict=True)]
    with warnings.catch_warnings(), mode, enable_python_dispatcher():
        warnings.simplefilter("ignore")
        table: Any = core_aten_decompositions()  # torch's own two types for it disagree
        make = make_fx(step, decomposition_table=table, tracing_mode="fake", _allow_non_fake_inputs=True)
        traced: nn.Module = make(*fakes)
        return traced


class _Traced(nn.Module):
    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.graph(*values))
