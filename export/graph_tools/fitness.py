"""Find the parts of an ONNX file that TensorRT would refuse, without TensorRT.

Three things are checked: every operator, its types, attributes and constants against the table of TensorRT's ONNX
parser; where sizes come from; and the types of inputs and outputs. TensorRT plans its memory from the sizes of the
inputs. So a size or a branch that follows from the values in a tensor, such as NonZero's or an input `orig_im_size`,
does not fit an engine whose outputs have a place before it runs.

INT64 inside a graph fits: since TensorRT 9 the parser no longer casts it to INT32 (docs/Changelog.md there). Axes that
vary need a profile, not another graph.

To find nothing proves nothing: the parser checks more than its table says. Each finding would stop it, or the engine.

Source: docs/operators.md of github.com/onnx/onnx-tensorrt for TensorRT 10.15, in tensorrt_operators.json; at most 8
dimensions (nvinfer1::Dims::MAX_DIMS); UINT8 for inputs and outputs only, which Cast takes.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    inliner,
    numpy_helper,
)

from maskrt.export.graph_tools.onnx_file import SMALL, elements, read_model

TABLE = Path(__file__).parent / "tensorrt_operators.json"
Sources = frozenset[str]  # names of the graph's inputs

# Operator -> inputs whose values decide the sizes of its outputs or, for If and Loop, the branch that runs.
DECIDING_INPUTS = {
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "If": (0,),
    "Loop": (0, 1),
    "NonMaxSuppression": (0, 1),
    "NonZero": (0,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unique": (0,),
    "Upsample": (1,),
}
DATA_INPUT = {"OneHot": 2, "Where": 1}  # the input that has the table's types; 0 for all others
TYPED_OUTPUT = ("Cast", "CastLike", "Constant", "ConstantOfShape", "EyeLike")  # their output has a type of its own


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parser's limits.

    operators: types separated by spaces -> operators, likewise. attributes: operator -> attribute -> accepted values;
    every element of a list must be one of them. constant_input, zero_input: operator -> the input that must be a
    constant, or a constant zero. input_rank: operator -> dimensions that input 0 may have.
    """

    source: str
    opset: tuple[int, int]
    tensors: str
    max_rank: int
    operators: dict[str, str]
    attributes: dict[str, dict[str, list[int | float | str]]]
    first_output_only: str
    constant_input: dict[str, int]
    zero_input: dict[str, int]
    input_rank: dict[str, list[int]]

    def types(self) -> dict[str, tuple[str, ...]]:
        """Return operator -> types that its data may have."""
        return {name: tuple(types.split()) for types, names in self.operators.items() for name in names.split()}


def findings(path: Path) -> tuple[str, ...]:
    """Return a line for each part of an ONNX file that TensorRT would refuse; empty where it fits."""
    return model_findings(read_model(path))


def model_findings(model: ModelProto) -> tuple[str, ...]:
    """Return the findings of a loaded model. The model is changed: large constants lose their values."""
    for tensor in model.graph.initializer:
        if elements(tensor) > SMALL:
            tensor.ClearField("raw_data")
    if model.functions:
        model = inliner.inline_local_functions(model)  # the parser does so too
    model = onnx.shape_inference.infer_shapes(model)
    walk = _Walk(msgspec.json.decode(TABLE.read_bytes(), type=Table), model)
    walk.graph(model.graph)
    return walk.lines()


class _Walk:
    """One pass over a model in the order in which it runs."""

    def __init__(self, table: Table, model: ModelProto) -> None:
        self._table, self._types = table, table.types()
        self._found: dict[str, list[str]] = {}  # problem -> its nodes
        self._type_of: dict[str, str] = {}
        self._rank_of: dict[str, int] = {}
        self._constants: dict[str, TensorProto] = {}
        # Tensor -> the graph's inputs from whose values its values follow, and those from which its size follows.
        self._values_from: dict[str, Sources] = {}
        self._size_from: dict[str, Sources] = {}
        self._untyped = 0
        lowest, highest = table.opset
        opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
        if not lowest <= opset <= highest:
            self._found[f"opset {opset}: TensorRT takes {lowest} to {highest}"] = []
        constants = {tensor.name for tensor in model.graph.initializer}
        for value in model.graph.input:
            if value.name not in constants:
                self._values_from[value.name] = frozenset({value.name})
                self._interface("input", value)
        for value in model.graph.output:
            self._interface("output", value)

    def lines(self) -> tuple[str, ...]:
        """Return every finding once, with its first node."""
        if self._untyped:
            self._found[f"{self._untyped} tensors have no type that ONNX infers, and were not checked"] = []
        return tuple(
            what
            + (f" ({nodes[0]})" if len(nodes) == 1 else f" ({nodes[0]} and {len(nodes) - 1} more)" if nodes else "")
            for what, nodes in self._found.items()
        )

    def graph(self, graph: GraphProto, given: Sequence[str] = ()) -> list[Sources]:
        """Check the nodes of a graph, or of a subgraph, whose names are all different.

        Args:
            given: the names outside of a subgraph's inputs.

        Returns:
            The sources of each output's values.
        """
        for inside, outside in zip(graph.input, given, strict=False):
            self._values_from[inside.name] = self._values_from.get(outside, frozenset())
        self._constants |= {tensor.name: tensor for tensor in graph.initializer}
        for value in (*graph.input, *graph.output, *graph.value_info):
            self._describe(value)
        for tensor in graph.initializer:
            self._type_of[tensor.name] = _type_name(tensor.data_type)
            self._rank_of[tensor.name] = len(tensor.dims)
        for node in graph.node:
            self._node(node)
        return [self._values_from.get(value.name, frozenset()) for value in graph.output]

    def _node(self, node: NodeProto) -> None:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant":
            self._constants[node.output[0]] = attributes["value"].t if "value" in attributes else TensorProto()
        inner = [self.graph(a.g, node.input) for a in node.attribute if a.type == AttributeProto.GRAPH]
        deciding = self._deciding(node)
        if node.op_type == "Loop":  # it may also end when its body says so, in the first output
            deciding |= inner[0][0]
        self._flow(node, deciding, _union(sources for outputs in inner for sources in outputs))
        if node.domain not in ("", "ai.onnx"):
            self._add(node, f"{node.domain}.{node.op_type} is no operator of ONNX itself")
        elif node.op_type not in self._types:
            self._add(node, f"{node.op_type} is not among the parser's operators")
        else:
            self._check_types(node)
            self._check_restrictions(node, attributes)
        if deciding:
            what = "branch" if node.op_type in ("If", "Loop") else "size"
            self._add(node, f"{node.op_type}: the {what} follows from the values of {', '.join(sorted(deciding))}")

    def _deciding(self, node: NodeProto) -> Sources:
        """Return the graph's inputs whose values decide the sizes of this node's outputs, or which branch runs."""
        indices = DECIDING_INPUTS.get(node.op_type, ())
        return _union(self._values_from.get(node.input[i]) for i in indices if i < len(node.input))

    def _flow(self, node: NodeProto, deciding: Sources, inner: Sources) -> None:
        sizes = _union(self._size_from.get(name) for name in node.input)
        measures = node.op_type in ("Shape", "Size")
        values = sizes if measures else inner | _union(self._values_from.get(name) for name in node.input)
        for name in node.output:
            self._values_from[name] = values
            self._size_from[name] = frozenset() if measures else sizes | deciding

    def _check_types(self, node: NodeProto) -> None:
        index = DATA_INPUT.get(node.op_type, 0)
        tensors = [*node.input[index : index + 1], *(node.output[:1] if node.op_type in TYPED_OUTPUT else ())]
        for name in filter(None, tensors):  # an input that is left out has no name
            found = self._type_of.get(name, "")
            if not found:
                self._untyped += 1
            elif found not in self._types[node.op_type]:
                self._add(node, f"{node.op_type} on {found}: TensorRT takes {', '.join(self._types[node.op_type])}")
        for name in (*node.input, *node.output):
            if self._rank_of.get(name, 0) > self._table.max_rank:
                rank = self._rank_of[name]
                self._add(node, f"{node.op_type} on {rank} dimensions: TensorRT takes {self._table.max_rank}")

    def _check_restrictions(self, node: NodeProto, attributes: dict[str, AttributeProto]) -> None:
        table, operator = self._table, node.op_type
        for name, taken in table.attributes.get(operator, {}).items():
            values = _values(attributes[name]) if name in attributes else []
            if not all(value in taken for value in values):
                found = ", ".join(map(str, values))
                self._add(
                    node, f"{operator} with {name} {found}: TensorRT takes {', '.join(map(str, taken)) or 'none'}"
                )
        if operator in table.first_output_only.split() and any(node.output[1:]):
            self._add(node, f"{operator} with more than its first output")
        for rank in {self._rank_of[name] for name in node.input[:1] if name in self._rank_of}:
            if rank not in table.input_rank.get(operator, [rank]):
                self._add(node, f"{operator} on {rank} dimensions")
        for inputs, zero in ((table.constant_input, False), (table.zero_input, True)):
            name = "".join(node.input[inputs[operator] : inputs[operator] + 1]) if operator in inputs else ""
            if name and name not in self._constants:
                self._add(node, f"{operator}: input {inputs[operator]} must be a constant")
            elif name and zero and numpy_helper.to_array(self._constants[name]).any():
                self._add(node, f"{operator}: the zero point must be 0")

    def _interface(self, what: str, value: ValueInfoProto) -> None:
        """Check the type of an input or output of the model."""
        kind = value.type.WhichOneof("value") or "value without a type"
        if kind != "tensor_type":
            self._found[f"{what} {value.name} is a {kind.removesuffix('_type')}: TensorRT takes tensors"] = []
            return
        if not value.type.tensor_type.HasField("shape"):
            self._found[f"{what} {value.name} has no number of dimensions"] = []
        found = _type_name(value.type.tensor_type.elem_type)
        if found not in self._table.tensors.split():
            self._found[f"{what} {value.name} is {found}: TensorRT has no such type"] = []
        elif found == "INT64":
            self._found[
                f"{what} {value.name} is INT64, which TensorRT before 10 binds as INT32: cast in the graph"
            ] = []

    def _describe(self, value: ValueInfoProto) -> None:
        tensor = value.type.tensor_type
        self._type_of[value.name] = _type_name(tensor.elem_type) if tensor.elem_type else ""
        if tensor.HasField("shape"):
            self._rank_of[value.name] = len(tensor.shape.dim)

    def _add(self, node: NodeProto, what: str) -> None:
        self._found.setdefault(what, []).append(node.name or next(iter(node.output), "a node without a name"))


def _values(attribute: AttributeProto) -> list[Any]:
    """Return an attribute as a list of numbers or texts."""
    value = onnx.helper.get_attribute_value(attribute)
    values = list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else [value]
    return [item.decode() if isinstance(item, bytes) else item for item in values]


def _union(sets: Iterable[Sources | None]) -> Sources:
    return frozenset().union(*(found for found in sets if found))


def _type_name(number: int) -> str:
    return str(TensorProto.DataType.Name(number))
