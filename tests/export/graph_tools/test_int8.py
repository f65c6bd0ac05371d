"""int8 where a layer multiplies with weights, float32 between."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from maskrt.export.graph_tools.int8 import convert_int8, has_inner_layers
from maskrt.runtime.engines.providers import open_session

Array = np.ndarray[Any, Any]


@pytest.fixture
def path(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A convolution with its norm, then attention between products with weights, at any height."""
    node, width = helper.make_node, 8
    # Each output channel has a range of its own: one scale for all would leave the first one nothing.
    channels = np.geomspace(0.01, 10, width).astype(np.float32)
    constants = {
        "kernel": (rng.standard_normal((width, width, 3, 3)) * channels[:, None, None, None]).astype(np.float32),
        "one": np.ones(width, np.float32),
        "zero": np.zeros(width, np.float32),
        "variance": (72 * channels**2).astype(np.float32),
        "tokens": np.array([0, width, -1], np.int64),
        "first": rng.standard_normal((width, 3, 3, 3)).astype(np.float32),
        "second": rng.standard_normal((width, width, 1, 1)).astype(np.float32),
        "last": rng.standard_normal((width, width)).astype(np.float32),
        "table": rng.standard_normal((1, width, width)).astype(np.float32) / 4,  # as relative positions are: no matrix
        "query": (rng.standard_normal((width, width)) * channels / 500).astype(np.float32),
        "value": rng.standard_normal((width, width)).astype(np.float32),
    }
    nodes = [
        node("Conv", ["image", "first"], ["corners"], pads=[1, 1, 1, 1]),
        node("Conv", ["corners", "second"], ["edges"]),
        node("Conv", ["edges", "kernel"], ["found"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["found", "one", "zero", "zero", "variance"], ["normed"]),
        node("Relu", ["normed"], ["seen"]),
        node("Reshape", ["seen", "tokens"], ["rows"]),
        node("Transpose", ["rows"], ["x"], perm=[0, 2, 1]),
        node("MatMul", ["x", "table"], ["moved"]),
        node("MatMul", ["moved", "query"], ["queries"]),
        node("Transpose", ["x"], ["keys"], perm=[0, 2, 1]),
        node("MatMul", ["queries", "keys"], ["scores"]),
        node("Softmax", ["scores"], ["attention"]),
        node("MatMul", ["x", "value"], ["values"]),
        node("MatMul", ["attention", "values"], ["read"]),
        node("MatMul", ["read", "last"], ["y"]),
    ]
    float_info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    graph = helper.make_graph(
        nodes,
        "graph",
        [float_info("image", [1, 3, "height", 6])],
        [float_info("y", [1, "cells", width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    file = tmp_path / "g.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
    return file


def feeds(rng: np.random.Generator, count: int, height: int = 5) -> list[dict[str, Array]]:
    return [{"image": rng.random((1, 3, height, 6), dtype=np.float32)} for _ in range(count)]


def test_weights_by_channel(path: Path, rng: np.random.Generator) -> None:
    target = path.with_name("g.int8.onnx")
    convert_int8(path, target, feeds(rng, 8))
    onnx.checker.check_model(target, full_check=True)
    graph = onnx.load(target).graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "MatMul")]
    weighted = [node for node in layers if getattr(makers.get(node.input[1]), "op_type", "") == "DequantizeLinear"]
    assert sorted(node.op_type for node in weighted) == ["Conv", "MatMul"]
    for node in weighted:
        weight = makers[node.input[1]]
        (axis,) = (attribute.i for attribute in weight.attribute if attribute.name == "axis")
        assert axis == (0 if node.op_type == "Conv" else 1)
        assert known[weight.input[0]].dtype == np.int8
        assert known[weight.input[1]].shape == (8,)
        assert makers[makers[node.input[0]].input[0]].op_type == "QuantizeLinear"
    others = [node for node in layers if node not in weighted]
    assert sorted(node.op_type for node in others) == ["Conv", "Conv", *["MatMul"] * 5]
    # No weight of theirs is quantised, though what they read may be, for a neighbour.
    assert all(makers[name].input[0] not in known for n in others for name in n.input[:2] if name in makers)
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_near_float32_at_another_size(path: Path, rng: np.random.Generator) -> None:
    target = path.with_name("g.int8.onnx")
    convert_int8(path, target, feeds(rng, 8))
    (other,) = feeds(rng, 1, height=9)
    with open_session(path) as plain, open_session(target) as quantised:
        assert (quantised.inputs, quantised.outputs) == (plain.inputs, plain.outputs)
        expected, found = plain.run(other)["y"], quantised.run(other)["y"]
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_graphs_without_inner_layers(path: Path, tiny_bundle: Path) -> None:
    assert has_inner_layers(path)
    assert has_inner_layers(tiny_bundle / "segmenter.onnx")
    assert not has_inner_layers(tiny_bundle / "encoder.onnx")
