"""Convert a float32 graph to float16, and leave in float32 what float16 cannot hold.

Weights and learnt layers become float16; they take the time. These parts stay in float32:

- Softmax, LayerNormalization and operators that sum or square many values: float16 ends at 65504, and a mean over 4096
  of them loses its last digits. From a mean, a root or a reciprocal, everything back to the learnt layers stays, so
  that a variance that is written out in single operators is computed in float32 as a whole.
- Places: coordinates on their way into a sine or cosine, and Resize. From 512 on, float16 has half pixels only.

Inputs and outputs keep their types, so a runtime needs no change.
"""

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

STATISTICS = {"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Sqrt", "Reciprocal"}
PLACES = {"Sin", "Cos"}
KEPT = {
    *STATISTICS,
    *PLACES,
    *DEFAULT_OP_BLOCK_LIST,  # no engine has these in float16
    *("Softmax", "LogSoftmax", "Exp", "Pow", "ReduceMax", "LayerNormalization", "InstanceNormalization"),
    *("GroupNormalization", "Resize", "GridSample"),
}
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# The walk from a statistic back to the source of its values ends here, at learnt layers, and at nodes kept already.
ENDS = {"Softmax", "Exp", "LayerNormalization"}


def convert_fp16(source: Path, target: Path) -> None:
    """Write a graph in float16 beside the float32 one. Weights outside the source go into the target.

    Args:
        source: an ONNX file whose weights are in it or beside it.
        target: in the same folder, since weights are found from there.
    """
    onnx.shape_inference.infer_shapes_path(str(source), str(target))  # from file to file: 2 GiB are no limit
    model = ir.from_proto(onnx.load(target))
    kept = kept_nodes(model.graph)
    for number, node in enumerate(model.graph):
        node.name = f"{number}_{node.op_type}"  # the converter needs different names, and some nodes have none
    plain = ir.to_proto(model)
    _forget_weights(plain.graph)
    converted = convert_float_to_float16(
        plain,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[],
        node_block_list=[node.name for node in kept],
    )
    _drop_repeated(converted.graph)
    model = ir.from_proto(converted)
    _drop_round_trips(model.graph)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()  # the converter appends its casts at the end
    _strip(model.graph)
    ir.save(model, target)


def write_rounded(source: Path, target: Path) -> None:
    """Write a graph whose answer on an engine without float16 is that of a float16 graph on an engine that has it.

    Every operator computes in float32, as a GPU's sums do, and its result is rounded to float16. ONNX Runtime would run
    `source` on a CPU almost without rounding: it removes the casts that it has put around such operators.

    Args:
        source: a file that convert_fp16 wrote.
    """
    onnx.shape_inference.infer_shapes_path(str(source), str(target))
    model = ir.load(target)
    for node in list(model.graph):
        values = {value for value in node.inputs if value is not None and value.dtype == ir.DataType.FLOAT16}
        if node.op_type == "Cast" or not values:
            continue
        for value in values:
            cast = _cast(value, ir.DataType.FLOAT, f"{node.name}_{value.name}_float32")
            model.graph.insert_before(node, cast)
            for index, read in enumerate(node.inputs):
                if read is value:
                    node.replace_input_with(index, cast.outputs[0])
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT16:
                cast = _cast(output, ir.DataType.FLOAT16, f"{output.name}_rounded")
                model.graph.insert_after(node, cast)
                output.replace_all_uses_with(cast.outputs[0])
                cast.replace_input_with(0, output)
                output.type = ir.TensorType(ir.DataType.FLOAT)
    ir.save(model, target)


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    output = ir.Value(name=name, type=ir.TensorType(to))
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(to))], outputs=[output], name=name)


def kept_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Return the nodes that stay in float32, in the graph's order; see the module's docstring."""
    kept = {node for node in graph if node.op_type in KEPT}
    for node in list(kept):
        if node.op_type in PLACES:
            kept |= _before(node, lambda _: False)
        elif node.op_type in STATISTICS:
            kept |= _before(node, lambda other: other.op_type in ENDS or _is_learnt(other))
        if node.op_type == "Sqrt":  # the division by a deviation
            kept |= {use.node for output in node.outputs for use in output.uses() if use.node.op_type == "Div"}
    return [node for node in graph if node in kept]


def _before(node: ir.Node, ends: Callable[[ir.Node], bool]) -> set[ir.Node]:
    """Return the nodes that a node's inputs are computed from, up to those where the walk ends."""
    found: set[ir.Node] = set()
    waiting = [node]
    while waiting:
        for value in waiting.pop().inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer not in found and not ends(producer):
                found.add(producer)
                waiting.append(producer)
    return found


def _is_learnt(node: ir.Node) -> bool:
    """Return whether a node multiplies with weights, not with another activation."""
    return node.op_type in WEIGHTED and any(value is not None and value.is_initializer() for value in node.inputs)


def _forget_weights(graph: onnx.GraphProto) -> None:
    """Remove weights from the listed types: the converter would treat those that stay in float32 as float16."""
    weights = {tensor.name for tensor in graph.initializer}
    listed = [value for value in graph.value_info if value.name not in weights]
    del graph.value_info[:]
    graph.value_info.extend(listed)


def _drop_repeated(graph: onnx.GraphProto) -> None:
    """Remove repeated casts: the converter makes one for every reader of a value, all with one name."""
    nodes = {node.output[0]: node for node in graph.node}
    del graph.node[:]
    graph.node.extend(nodes.values())


def _drop_round_trips(graph: ir.Graph) -> None:
    """Remove casts to float16 and back: the converter puts them between any two nodes that stay in float32."""
    for node in graph:
        before = node.inputs[0].producer() if node.op_type == "Cast" and node.inputs[0] is not None else None
        if before is None or before.op_type != "Cast" or _to(node) != ir.DataType.FLOAT:
            continue
        value = before.inputs[0]
        if _to(before) != ir.DataType.FLOAT16 or value is None or value.dtype != ir.DataType.FLOAT:
            continue
        (output,) = node.outputs
        if output.is_graph_output():  # its name has to stay
            node.op_type = "Identity"
            node.attributes.clear()
            node.replace_input_with(0, value)
        else:
            output.replace_all_uses_with(value)


def _to(cast: ir.Node) -> ir.DataType:
    return ir.DataType(cast.attributes["to"].as_int())


def _strip(graph: ir.Graph) -> None:
    """Remove the types and shapes between the nodes: engines infer them, and some of the converter's are wrong."""
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None
