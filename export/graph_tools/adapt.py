"""Change somebody else's ONNX graph: sort its nodes, keep one output, and put nodes before and behind it."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

from maskrt.runtime.errors import InputError

IMAGE, LOGITS = "image", "logits"


def sort_nodes(model: ModelProto) -> bool:
    """Put the nodes of every graph after those whose values they use, in place; return whether any moved.

    ONNX Runtime runs a graph in any order; the format, its checker and other engines want them sorted.

    Raises:
        InputError: nodes need each other in a circle.
    """
    return sum(_sort(body) for body in (model.graph, *model.functions)) > 0  # every one, unlike any()


def declare_outputs(model: ModelProto) -> bool:
    """Give outputs the type and shape that follow from the graph where they have none; return whether any had none.

    ONNX Runtime needs neither; the checker does.
    """
    bare = [value for value in model.graph.output if not value.type.tensor_type.HasField("shape")]
    bare = [value for value in bare if value.type.WhichOneof("value") in (None, "tensor_type")]
    if not bare:
        return False
    for value, inferred in zip(model.graph.output, onnx.shape_inference.infer_shapes(model).graph.output, strict=True):
        if value in bare:
            value.CopyFrom(inferred)
    return True


def producer(graph: GraphProto, name: str) -> NodeProto | None:
    """Return the node that computes a value; None for an input or a constant."""
    return next((node for node in graph.node if name in node.output), None)


def keep_output(model: ModelProto, name: str) -> bool:
    """Make a value of the graph its only output, and drop the nodes that it does not need; return whether it was not.

    Raises:
        InputError: the graph computes no such value.
    """
    graph = model.graph
    if [value.name for value in graph.output] == [name]:
        return False
    kept = next((value for value in graph.output if value.name == name), None)
    if kept is None:
        if producer(graph, name) is None:
            outputs = ", ".join(value.name for value in graph.output)
            raise InputError(f"no output {name!r}; outputs: {outputs}; the name of any value inside the graph will do")
        inner = onnx.shape_inference.infer_shapes(model).graph.value_info
        kept = next((value for value in inner if value.name == name), None)
        if kept is None:
            raise InputError(f"{name!r} is inside the graph, and its type is not known: make it an output of the model")
    kept = type(kept).FromString(kept.SerializeToString())
    del graph.output[:]
    graph.output.append(kept)
    needed, nodes = {name}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_used(node))
    _replace_nodes(graph, reversed(nodes))
    return True


def at_least_opset(model: ModelProto, opset: int) -> ModelProto:
    """Return a model whose operators are of an opset that the added nodes exist in.

    Raises:
        InputError: it cannot be converted.
    """
    have = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if have >= opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except Exception as error:  # a RuntimeError of its C++ part
        raise InputError(
            f"opset {have} cannot be converted to {opset}: export the model with {opset} or later"
        ) from error


class Chain:
    """Nodes that are added to a graph one after the other; `value` is the name of the latest one's output."""

    def __init__(self, model: ModelProto, other: "Chain | None" = None) -> None:
        """Begin without a value. other: a chain for the same graph, whose names are taken too."""
        self.value = ""
        self.nodes: list[NodeProto] = []
        self._graph = model.graph
        self._taken: set[str] = set() if other is None else other._taken
        self._taken.update(name for node in model.graph.node for name in (*node.input, *node.output))
        self._taken.update(entry.name for entry in (*model.graph.input, *model.graph.initializer))

    def new(self, wish: str = "maskrt") -> str:
        """Return a name that is not in the graph, and take it."""
        name, count = wish, 0
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant; return its name."""
        name = self.new("maskrt_constant")
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, on the latest value where no inputs are given; its output becomes the latest value."""
        output = self.new()
        self.nodes.append(helper.make_node(operator, list(inputs or (self.value,)), [output], **attributes))
        self.value = output
        return output


def declare(
    model: ModelProto, image: str, logits: str, takes: Sequence[int | None], returns: Sequence[int | None]
) -> None:
    """Replace input and output of a graph by float32 ones of these names and shapes; None is an open axis."""
    axes = ("batch", "channels", "height", "width")
    kept = [value for value in model.graph.input if value.name in {one.name for one in model.graph.initializer}]
    shapes = [
        [axis if size is None else size for axis, size in zip(axes, one, strict=True)] for one in (takes, returns)
    ]
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend([helper.make_tensor_value_info(image, TensorProto.FLOAT, shapes[0]), *kept])
    model.graph.output.append(helper.make_tensor_value_info(logits, TensorProto.FLOAT, shapes[1]))


def surround(model: ModelProto, before: Chain, old_input: str, behind: Chain) -> None:
    """Put nodes before and behind a graph: what read `old_input` reads the latest value of `before`."""
    for node in model.graph.node:
        _rename(node, old_input, before.value)
    nodes = [*before.nodes, *model.graph.node, *behind.nodes]
    _replace_nodes(model.graph, nodes)


def _rename(node: NodeProto, old: str, new: str) -> None:
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new
    for graph in _subgraphs(node):
        for inner in graph.node:
            _rename(inner, old, new)


def _replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _used(node: NodeProto) -> set[str]:
    """Return the names of the values that a node uses, with those that its subgraphs take from outside."""
    used = {name for name in node.input if name}
    for graph in _subgraphs(node):
        inside = {name for inner in graph.node for name in inner.output}
        inside |= {value.name for value in (*graph.input, *graph.initializer)}
        wanted = {name for inner in graph.node for name in _used(inner)} | {value.name for value in graph.output}
        used |= wanted - inside
    return used


def _sort(body: GraphProto | onnx.FunctionProto) -> bool:
    moved = sum(_sort(graph) for node in body.node for graph in _subgraphs(node)) > 0
    makers = {name: index for index, node in enumerate(body.node) for name in node.output if name}
    needs = [{makers[name] for name in _used(node) if name in makers} - {i} for i, node in enumerate(body.node)]
    users: dict[int, list[int]] = {}
    for index, needed in enumerate(needs):
        for maker in needed:
            users.setdefault(maker, []).append(index)
    waiting = [len(needed) for needed in needs]
    ready = [index for index, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for user in users.get(order[-1], ()):
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)
    if len(order) < len(body.node):
        stuck = next(node for node, count in zip(body.node, waiting, strict=True) if count)
        raise InputError(f"its nodes need each other in a circle, {stuck.op_type} {stuck.name!r} among them")
    if order == sorted(order):
        return moved
    nodes = [NodeProto.FromString(body.node[index].SerializeToString()) for index in order]
    del body.node[:]
    body.node.extend(nodes)
    return True
