"""Find the size of every value in an ONNX graph whose inputs have a size, without running it.

It is one pass in the order of the file. ONNX's own shape inference gets every node with the exact sizes before it, and
with all values that are small and known: constants, the results of Shape and Size, and small arithmetic on them, which
onnx.reference computes. So a Reshape whose sizes are put together from others has a size too, and an error names the
node at which a size is no longer known. Nothing is computed with weights or activations: the pass takes the memory of
the parsed file, without the weights beside it, where SAM ViT-H has them.

onnx.shape_inference.infer_shapes is not enough: with data_prop and exact inputs it leaves 135 sizes of the demo's
encoder open, from its Pad on, and 224 of its decoder's token side. To run the graph in ONNX Runtime with every value as
an output would need all weights and all activations at the same time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    defs,
    helper,
    inliner,
    numpy_helper,
    shape_inference,
)
from onnx.reference import ReferenceEvaluator

from maskrt.export.graph_tools.onnx_file import read_model
from maskrt.runtime.errors import CostUnknown, InputError

Shape = tuple[int, ...]
Sizes = Mapping[str, Shape]  # input -> its size
KEPT = 1024  # elements of a value that may decide a size: one number for each axis, or a few for each
HALF_BYTES = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)
# ONNX gives their result the shape of their first input, and has no inference for them.
LIKE_FIRST = ("GroupNormalization", "MeanVarianceNormalization")
STANDARD = ("", "ai.onnx")  # the two spellings of the domain of ONNX itself


@dataclass(frozen=True)
class Value:
    """A tensor in a graph.

    kind: of TensorProto.DataType. constant: a weight, or a value that follows from weights alone, whatever the input.
    """

    name: str
    kind: int
    shape: Shape
    constant: bool = False

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Size of the elements. Types of half a byte are packed in pairs."""
        if self.kind in HALF_BYTES:
            return -(-self.elements // 2)
        return self.elements * int(helper.tensor_dtype_to_np_dtype(self.kind).itemsize)


@dataclass(frozen=True)
class Step:
    """One node. inputs: None where an optional one is left out; outputs: those that have a name."""

    node: NodeProto
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]

    @property
    def label(self) -> str:
        """Operator and name, for people."""
        return label_of(self.node)

    @property
    def constant(self) -> bool:
        """Whether it depends on no input. Engines run such a node once, on loading."""
        return all(value.constant for value in self.outputs)


@dataclass(frozen=True)
class Walk:
    """A graph in the order in which it runs. weights: its constants, those of Constant nodes as well."""

    inputs: tuple[Value, ...]
    weights: tuple[Value, ...]
    steps: tuple[Step, ...]
    outputs: frozenset[str]


def input_shapes(model: ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Return input -> its axes: a size, or the name of a dynamic axis, "" where it has none."""
    return {
        value.name: tuple(
            axis.dim_value if axis.HasField("dim_value") else str(axis.dim_param)
            for axis in value.type.tensor_type.shape.dim
        )
        for value in _true_inputs(model)
    }


def walk_file(path: Path, sizes: Sizes) -> Walk:
    """Find the size of every value in an ONNX file. Only small weights beside it are read.

    Args:
        sizes: of every input.

    Raises:
        InputError: an input has no size, or one that its fixed axes do not allow.
        CostUnknown: a size follows from values, from a branch, or from an operator that ONNX does not define.
    """
    return walk_model(read_model(path), path.name, sizes)


def walk_model(model: ModelProto, file: str, sizes: Sizes) -> Walk:
    """Find the sizes in a loaded model; see walk_file. file: its name, for messages."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    if model.graph.sparse_initializer:
        raise CostUnknown(f"{file}: it holds sparse weights: export it with dense ones")
    walker = _Walker(model, file)
    inputs = tuple(walker.feed(value, sizes) for value in _true_inputs(model))
    steps = tuple(walker.step(node) for node in model.graph.node)
    return Walk(inputs, walker.weights, steps, frozenset(value.name for value in model.graph.output))


def label_of(node: NodeProto) -> str:
    """Return a node's operator and name, or its first output where it has no name."""
    return f"{node.op_type} {node.name or next(iter(node.output), '')}".strip()


def _true_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """Return the inputs that are no weights: ONNX before IR version 4 lists both."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


class _Walker:
    """The sizes and values known so far."""

    def __init__(self, model: ModelProto, file: str) -> None:
        self._file, self._opsets, self._ir = file, list(model.opset_import), model.ir_version
        self._version = max((opset.version for opset in model.opset_import if opset.domain in STANDARD), default=0)
        self._values: dict[str, Value] = {}
        self._known: dict[str, TensorProto] = {}  # the contents of small values
        self._constants: list[Value] = []
        for tensor in model.graph.initializer:
            value = Value(tensor.name, tensor.data_type, tuple(tensor.dims), constant=True)
            self._values[tensor.name] = value
            self._constants.append(value)
            if value.elements <= KEPT:
                self._known[tensor.name] = tensor

    @property
    def weights(self) -> tuple[Value, ...]:
        """The constants met so far."""
        return tuple(self._constants)

    def feed(self, info: ValueInfoProto, sizes: Sizes) -> Value:
        """Give an input its size."""
        if info.type.WhichOneof("value") != "tensor_type":
            raise CostUnknown(f"{self._file}: input {info.name} is no tensor: its size is not known before it runs")
        fixed = [axis.dim_value if axis.HasField("dim_value") else None for axis in info.type.tensor_type.shape.dim]
        size = sizes.get(info.name)
        allowed = size is not None and len(size) == len(fixed)
        if size is None or not allowed or not all(a in (None, b) and b > 0 for a, b in zip(fixed, size, strict=True)):
            wanted = ", ".join("any" if axis is None else str(axis) for axis in fixed)
            raise InputError(f"{self._file}: {info.name} takes [{wanted}], not {'nothing' if size is None else size}")
        value = Value(info.name, info.type.tensor_type.elem_type, size)
        self._values[info.name] = value
        return value

    def step(self, node: NodeProto) -> Step:
        """Find the sizes of a node's outputs, and their contents where a later size may follow from them."""
        if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute):
            raise self._unknown(node, "values decide what it runs: export it without branches")
        missing = [name for name in node.input if name and name not in self._values]
        if missing:
            raise self._unknown(node, f"nothing before it makes {missing[0]}: export the graph again")
        inputs = tuple(self._values[name] if name else None for name in node.input)
        given = [value for value in inputs if value is not None]
        constant = node.op_type == "Constant" or (bool(given) and all(value.constant for value in given))
        found = self._infer(node, inputs)
        outputs = tuple(self._measured(node, name, found.get(name), constant) for name in node.output if name)
        self._values |= {value.name: value for value in outputs}
        if node.op_type == "Constant":
            self._constants += outputs
        self._learn(node, given, outputs)
        return Step(node, inputs, outputs)

    def _infer(self, node: NodeProto, inputs: tuple[Value | None, ...]) -> Mapping[str, TypeProto]:
        given = {value.name: value for value in inputs if value is not None}
        types = {name: helper.make_tensor_type_proto(value.kind, value.shape) for name, value in given.items()}
        if node.domain not in STANDARD:
            raise self._unknown(
                node, f"it is an operator of {node.domain}, not of ONNX itself: export it with ONNX's own"
            )
        if node.op_type in LIKE_FIRST:
            return {node.output[0]: types[node.input[0]]}
        try:
            schema = defs.get_schema(node.op_type, self._version)
        except defs.SchemaError as error:
            raise self._unknown(node, f"ONNX {onnx.__version__} does not know it in opset {self._version}") from error
        known = {name: self._known[name] for name in given if name in self._known}
        try:
            inferred: Mapping[str, TypeProto] = shape_inference.infer_node_outputs(
                schema, node, types, known, opset_imports=self._opsets, ir_version=self._ir
            )
        except (shape_inference.InferenceError, KeyError) as error:
            sizes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items() if not value.constant)
            first = str(error).strip().partition("\n")[0]
            why = f"its inputs do not fit together ({sizes or first}): choose sizes that do"
            raise self._unknown(node, why) from error
        return inferred

    def _measured(self, node: NodeProto, name: str, kind: TypeProto | None, constant: bool) -> Value:
        tensor = kind.tensor_type if kind is not None and kind.WhichOneof("value") == "tensor_type" else None
        if tensor is None or not tensor.HasField("shape") or not all(a.HasField("dim_value") for a in tensor.shape.dim):
            raise self._unknown(node, f"the size of {name} follows from values: export it without them")
        return Value(name, tensor.elem_type, tuple(axis.dim_value for axis in tensor.shape.dim), constant)

    def _learn(self, node: NodeProto, given: list[Value], outputs: tuple[Value, ...]) -> None:
        """Keep the contents of the outputs, if they are small and known."""
        if any(value.elements > KEPT for value in outputs):
            return
        if node.op_type in ("Shape", "Size"):
            self._known[outputs[0].name] = numpy_helper.from_array(_measure(node, given[0]), outputs[0].name)
        elif all(value.name in self._known for value in given) and (given or node.op_type == "Constant"):
            infos = [ValueInfoProto(name=value.name) for value in outputs]
            constants = [self._known[name] for name in dict.fromkeys(value.name for value in given)]
            graph = helper.make_graph([node], "one", [], infos, constants)
            model = helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir)
            contents = ReferenceEvaluator(model).run(None, {})
            for value, content in zip(outputs, contents, strict=True):
                self._known[value.name] = numpy_helper.from_array(np.asarray(content), value.name)

    def _unknown(self, node: NodeProto, why: str) -> CostUnknown:
        return CostUnknown(f"{self._file}: {label_of(node)}: {why}")


def _measure(node: NodeProto, value: Value) -> NDArray[np.int64]:
    """Return the result of Shape or Size on a value."""
    if node.op_type == "Size":
        return np.array(value.elements, np.int64)
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    return np.array(value.shape[bounds.get("start", 0) : bounds.get("end")], np.int64)
