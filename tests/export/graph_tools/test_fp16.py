"""float16 where it holds, float32 where it does not."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from maskrt.export.graph_tools.fp16 import KEPT, PLACES, STATISTICS, convert_fp16, write_rounded
from maskrt.runtime.engines.providers import open_session

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
Array = np.ndarray[Any, Any]


def write_graph(path: Path, nodes: list[Any], inputs: dict, outputs: dict, constants: dict[str, Array]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def types(path: Path) -> tuple[list[Any], dict[str, int]]:
    """The nodes, and the element type of every value; a graph whose types contradict each other does not pass."""
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return list(graph.node), known | {tensor.name: tensor.data_type for tensor in graph.initializer}


def answers(path: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    with open_session(path) as session:
        return session.run(feeds)


@pytest.fixture
def written_out(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Array]]:
    """A projection, its layer norm in single operators, attention, and a place on its way into a sine."""
    width = 16
    constants: dict[str, Array] = {
        "weight": rng.standard_normal((width, width)).astype(np.float32),
        "last": rng.standard_normal((width, 4)).astype(np.float32),
        "epsilon": np.array(1e-6, np.float32),
        "period": np.array(2 * np.pi / 64, np.float32),
        "channel": np.array([-1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "weight"], ["projected"]),
        node("ReduceMean", ["projected", "channel"], ["mean"]),
        node("Sub", ["projected", "mean"], ["centred"]),
        node("Mul", ["centred", "centred"], ["squares"]),
        node("ReduceMean", ["squares", "channel"], ["spread"]),
        node("Add", ["spread", "epsilon"], ["raised"]),
        node("Sqrt", ["raised"], ["deviation"]),
        node("Div", ["centred", "deviation"], ["normed"]),
        node("Transpose", ["normed"], ["turned"], perm=[1, 0]),
        node("MatMul", ["normed", "turned"], ["scores"]),
        node("Softmax", ["scores"], ["attention"]),
        node("MatMul", ["attention", "normed"], ["read"]),
        node("Mul", ["coords", "period"], ["angle"]),
        node("Sin", ["angle"], ["sine"]),
        node("Add", ["read", "sine"], ["placed"]),
        node("MatMul", ["placed", "last"], ["y"]),
    ]
    shapes = {"x": [6, width], "coords": [6, 1]}
    path = write_graph(tmp_path / "g.onnx", nodes, shapes, {"y": [6, 4], "spread": [6, 1]}, constants)
    # Far from 0, so that squares leave float16's range, and places that it does not tell apart.
    feeds = {"x": 300 * rng.standard_normal((6, width)), "coords": 2000 + rng.random((6, 1))}
    return path, {name: value.astype(np.float32) for name, value in feeds.items()}


def test_what_float16_cannot_hold_stays(written_out: tuple[Path, dict[str, Array]]) -> None:
    path, feeds = written_out
    target = path.with_name("g.fp16.onnx")
    convert_fp16(path, target)
    nodes, known = types(target)
    for node in nodes:
        if node.op_type in KEPT:
            assert {known[name] for name in node.input if known[name] != TensorProto.INT64} == {FLOAT}
    for op_type in ("Mul", "Sub", "Div"):  # between the statistics, and before the sine
        assert all(known[name] == FLOAT for node in nodes if node.op_type == op_type for name in node.input)
    assert {known[name] for node in nodes if node.op_type == "MatMul" for name in node.input} == {FLOAT16}
    assert known["weight"] == known["last"] == FLOAT16
    assert known["epsilon"] == known["period"] == FLOAT
    found, expected = answers(target, feeds), answers(path, feeds)
    assert expected["spread"].max() > 65504
    assert np.allclose(found["spread"], expected["spread"], rtol=3e-3)
    assert np.abs(found["y"] - expected["y"]).max() < 0.01 * np.abs(expected["y"]).max()


def test_nothing_goes_to_float16_and_back(written_out: tuple[Path, dict[str, Array]]) -> None:
    path, _ = written_out
    target = path.with_name("g.fp16.onnx")
    convert_fp16(path, target)
    nodes, known = types(target)
    cast_to = {node.output[0]: known[node.output[0]] for node in nodes if node.op_type == "Cast"}
    for node in nodes:
        if node.op_type == "Cast":
            assert known[node.input[0]] != known[node.output[0]]
            assert not (known[node.output[0]] == FLOAT and cast_to.get(node.input[0]) == FLOAT16)
    used = {name for node in nodes for name in node.input} | {"y", "spread"}
    assert all(node.output[0] in used for node in nodes)


def test_inputs_and_outputs_keep_their_types(written_out: tuple[Path, dict[str, Array]]) -> None:
    path, _ = written_out
    target = path.with_name("g.fp16.onnx")
    convert_fp16(path, target)
    with open_session(path) as before, open_session(target) as after:
        assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    assert target.stat().st_size < 3 * path.stat().st_size  # casts weigh more than these weights save


def test_rounded_where_a_cpu_would_not(tmp_path: Path, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((5, 5)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "product"], ["double"]),
        helper.make_node("Tanh", ["double"], ["y"]),
    ]
    path = write_graph(tmp_path / "g.onnx", nodes, {"x": [5, 5]}, {"y": [5, 5]}, {"weight": weight})
    typed, rounded = tmp_path / "g.fp16.onnx", tmp_path / "rounded.onnx"
    convert_fp16(path, typed)
    write_rounded(typed, rounded)
    types(rounded)
    x = rng.standard_normal((5, 5)).astype(np.float32)

    def halved(values: Array) -> Array:
        return values.astype(np.float16).astype(np.float32)

    expected = halved(np.tanh(halved(2 * halved(halved(x) @ halved(weight)))))
    with open_session(typed) as left_out:
        assert not np.allclose(left_out.run({"x": x})["y"], expected, rtol=1e-5)  # or write_rounded is not needed
    assert np.allclose(answers(rounded, {"x": x})["y"], expected, rtol=1e-3, atol=1e-7)
    assert np.array_equal(halved(answers(rounded, {"x": x})["y"]), answers(rounded, {"x": x})["y"])


@pytest.fixture
def sam_feeds(sam_graphs: dict[str, Path], rng: np.random.Generator) -> dict[str, dict[str, Array]]:
    """The inputs of every graph: what the one before it answers."""
    values = {"image": rng.integers(0, 256, (1, 96, 128, 3), np.uint8)}
    values["point_coords"] = np.array([[[30.5, 40.5], [0, 0]], [[90.5, 12.5], [0, 0]]], np.float32)
    values["point_labels"] = np.tile(np.array([1, -1], np.float32), (2, 1))
    values["mask_input"], values["has_mask_input"] = np.zeros((1, 1, 32, 32), np.float32), np.zeros(1, np.float32)
    feeds = {}
    for role in ("encoder", "decoder", "image_side", "token_side", "upscale"):
        with open_session(sam_graphs[role]) as session:
            feeds[role] = {name: values[name] for name in session.inputs}
            values |= session.run(feeds[role])
    return feeds


@pytest.mark.parametrize("role", ["encoder", "decoder", "token_side", "upscale"])
def test_networks(
    sam_graphs: dict[str, Path], sam_feeds: dict[str, dict[str, Array]], role: str, tmp_path: Path
) -> None:
    path, feeds = sam_graphs[role], sam_feeds[role]
    target = tmp_path / "fp16.onnx"
    convert_fp16(path, target)
    nodes, known = types(target)
    for node in nodes:
        if node.op_type in STATISTICS | PLACES | {"Softmax", "LayerNormalization"}:
            assert known[node.output[0]] == FLOAT, node.op_type
            assert known[node.input[0]] == FLOAT, node.op_type
    products = [node for node in nodes if node.op_type in ("MatMul", "Gemm", "Conv")]
    assert sum(known[node.output[0]] == FLOAT16 for node in products) >= len(products) / 3
    rounded = tmp_path / "rounded.onnx"
    write_rounded(target, rounded)
    found, expected = answers(rounded, feeds), answers(path, feeds)
    for name, value in expected.items():
        assert 0 < np.abs(found[name] - value).max() < 0.02 * np.abs(value).max(), name
