"""The cost of running an ONNX graph at given sizes, read from the file: nothing is run, and no weights are needed.

GFLOPs are 2 x multiply-adds / 1e9 throughout; `products` says what is counted. Each figure is of one run of the graph.
"""

from collections import defaultdict
from pathlib import Path

import msgspec
from onnx import TensorProto

from maskrt.export.graph_tools.products import multiply_adds, paper_flops
from maskrt.export.graph_tools.shapes import Sizes, Step, Walk, walk_file
from maskrt.runtime.errors import CostUnknown

# Types of sizes, axes, indices and masks, which are not learnt.
NO_PARAMETERS = (TensorProto.INT64, TensorProto.BOOL)


class OperatorCost(msgspec.Struct, frozen=True):
    """All nodes of one operator. output_bytes: of their outputs, without those that follow from weights alone."""

    nodes: int
    multiply_adds: int
    output_bytes: int


class GraphCost(msgspec.Struct, frozen=True):
    """One run of a graph.

    parameters: elements of its constants, apart from int64 and bool: weights, statistics of norms, tables, and scales
    and zero points where it is quantised. weight_bytes: of all constants. flops: 2 x multiply_adds. paper_flops: see
    products.paper_flops. peak_bytes: activations that live at once, see peak_activations; peak_at: the node. operators:
    those with the most multiply-adds first, then those that write the most.
    """

    parameters: int
    weight_bytes: int
    multiply_adds: int
    flops: int
    paper_flops: int
    peak_bytes: int
    peak_at: str
    operators: dict[str, OperatorCost]


def graph_cost(path: Path, sizes: Sizes) -> GraphCost:
    """Return the cost of an ONNX file.

    Args:
        sizes: of every input.

    Raises:
        InputError: an input has no size, or one that it does not take.
        CostUnknown: the size of a value, or the number of products, does not follow from the sizes; says which node.
    """
    return cost_of(walk_file(path, sizes), path.name)


def cost_of(walk: Walk, file: str) -> GraphCost:
    """Return the cost of a graph whose sizes are known; see graph_cost. file: its name, for messages."""
    try:
        operators = _by_operator(walk.steps)
        papers = sum(paper_flops(step) for step in walk.steps)
    except CostUnknown as error:
        raise CostUnknown(f"{file}: {error}") from error
    products = sum(operator.multiply_adds for operator in operators.values())
    peak, where = peak_activations(walk)
    return GraphCost(
        parameters=sum(value.elements for value in walk.weights if value.kind not in NO_PARAMETERS),
        weight_bytes=sum(value.size_bytes for value in walk.weights),
        multiply_adds=products,
        flops=2 * products,
        paper_flops=papers,
        peak_bytes=peak,
        peak_at=where,
        operators=operators,
    )


def peak_activations(walk: Walk) -> tuple[int, str]:
    """Return the most bytes of activations that live at the same time, and the node at which they do.

    Inputs live throughout, outputs from their node to the end, and every other value until its last reader. A node's
    inputs and outputs live together. An engine may compute in place, make one kernel of several nodes, such as a
    convolution between DequantizeLinear and QuantizeLinear, or choose another order; none of this is counted, and
    neither are its workspaces. Weights, and values that follow from them alone, do not count.
    """
    last_read = {v.name: i for i, step in enumerate(walk.steps) for v in step.inputs if v is not None}
    kept = {value.name for value in walk.inputs} | walk.outputs
    live = sum(value.size_bytes for value in walk.inputs)
    peak, where = live, "inputs"
    for index, step in enumerate(walk.steps):
        made = [value for value in step.outputs if not value.constant]
        live += sum(value.size_bytes for value in made)
        if live > peak:
            peak, where = live, step.label
        read = {v.name: v for v in step.inputs if v is not None and not v.constant and last_read[v.name] == index}
        unread = {value.name: value for value in made if value.name not in last_read}
        live -= sum(value.size_bytes for name, value in (read | unread).items() if name not in kept)
    return peak, where


def _by_operator(steps: tuple[Step, ...]) -> dict[str, OperatorCost]:
    nodes: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        nodes[step.node.op_type].append(step)
    costs = {
        operator: OperatorCost(
            nodes=len(found),
            multiply_adds=sum(multiply_adds(step) for step in found),
            output_bytes=sum(v.size_bytes for step in found for v in step.outputs if not v.constant),
        )
        for operator, found in nodes.items()
    }
    return dict(sorted(costs.items(), key=lambda item: (-item[1].multiply_adds, -item[1].output_bytes, item[0])))
