"""Parts of a graph that TensorRT would refuse: our graphs have none, and graphs made to have one are found out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from maskrt.benchmarks.reports.demo import BUNDLE
from maskrt.export.bundles.entries import fitness_lines
from maskrt.export.graph_tools.fitness import TABLE, Table, findings, model_findings
from maskrt.runtime.bundle.bundle import Bundle, open_bundle

FLOAT, INT64, BOOL, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8
Port = tuple[str, int, list[Any] | None]


def value(name: str, kind: int, shape: list[Any] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Port] = (("x", FLOAT, ["n", 4]),),
    outputs: Sequence[Port] = (("y", FLOAT, [None, None]),),
    constants: dict[str, Any] | None = None,
    opset: int = 20,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    arrays = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", [value(*i) for i in inputs], [value(*o) for o in outputs], arrays)
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("other", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10, functions=functions)


def node(operator: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(","), outputs.split(","), name=f"the_{operator}", **attributes)


def branch(name: str, operator: str) -> onnx.GraphProto:
    return helper.make_graph([node(operator, "x", name)], name, [], [value(name, FLOAT, None)])


def test_a_plain_graph_fits() -> None:
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape,zero", "rows"),
        node("Concat", "rows,minus", "sizes", axis=0),
        node("Reshape", "x,sizes", "same"),  # a size that follows from a size
        node("Gelu", "same", "gelu"),
        node("LayerNormalization", "gelu,scale", "y"),
    ]
    constants = {"zero": np.array([0]), "minus": np.array([-1]), "scale": np.ones(4, np.float32)}
    assert model_findings(model(nodes, constants=constants)) == ()


BAD = {
    "data-dependent size": (
        model([node("NonZero", "x")], outputs=[("y", TensorProto.INT32, [2, None])]),
        ["NonZero: the size follows from the values of x (the_NonZero)"],
    ),
    "size of a data-dependent size": (
        model(
            [
                node("NonZero", "x", "found"),
                node("Shape", "found", "count"),
                node("ConstantOfShape", "count"),
            ]
        ),
        [
            "NonZero: the size follows from the values of x (the_NonZero)",
            "ConstantOfShape: the size follows from the values of x (the_ConstantOfShape)",
        ],
    ),
    "int64 output": (
        model([node("ArgMax", "x")], outputs=[("y", INT64, [1, 4])]),
        ["output y is INT64, which TensorRT before 10 binds as INT32: cast in the graph"],
    ),
    "branch on data": (
        model(
            [
                node("ReduceMax", "x", "most", keepdims=0),
                node("Greater", "most,zero", "positive"),
                node("If", "positive", then_branch=branch("a", "Relu"), else_branch=branch("b", "Unique")),
            ],
            constants={"zero": np.float32(0)},
        ),
        [
            "Unique is not among the parser's operators (the_Unique)",
            "Unique: the size follows from the values of x (the_Unique)",
            "If: the branch follows from the values of x (the_If)",
        ],
    ),
    "loop on data": (
        model(
            [
                node("Cast", "x", "times", to=INT64),
                node(
                    "Loop",
                    "times,,x",
                    body=helper.make_graph(
                        [node("Identity", "go", "on"), node("Neg", "state", "next")],
                        "body",
                        [value("i", INT64, []), value("go", BOOL, []), value("state", FLOAT, None)],
                        [value("on", BOOL, []), value("next", FLOAT, None)],
                    ),
                ),
            ],
            inputs=[("x", FLOAT, [])],
            outputs=[("y", FLOAT, [])],
        ),
        ["Loop: the branch follows from the values of x (the_Loop)"],
    ),
    "loop that ends by its body": (
        model(
            [
                node(
                    "Loop",
                    ",yes,x",
                    body=helper.make_graph(
                        [node("Less", "state,ten", "on"), node("Add", "state,ten", "next")],
                        "body",
                        [value("i", INT64, []), value("go", BOOL, []), value("state", FLOAT, [])],
                        [value("on", BOOL, []), value("next", FLOAT, [])],
                    ),
                ),
            ],
            inputs=[("x", FLOAT, [])],
            outputs=[("y", FLOAT, [])],
            constants={"yes": np.array(True), "ten": np.float32(10)},
        ),
        ["Loop: the branch follows from the values of x (the_Loop)"],
    ),
    "orig_im_size": (
        model(
            [node("Cast", "orig_im_size", "sizes", to=INT64), node("Resize", "x,,,sizes", mode="linear")],
            inputs=[("x", FLOAT, [4, 4]), ("orig_im_size", FLOAT, [2])],
        ),
        ["Resize: the size follows from the values of orig_im_size (the_Resize)"],
    ),
    "sequences": (
        model([node("SplitToSequence", "x", "s"), node("SequenceAt", "s,one")], constants={"one": np.int64(1)}),
        [
            "SplitToSequence is not among the parser's operators (the_SplitToSequence)",
            "SequenceAt is not among the parser's operators (the_SequenceAt)",
        ],
    ),
    "another domain": (
        model([helper.make_node("Fast", ["x"], ["y"], name="f", domain="other")]),
        ["other.Fast is no operator of ONNX itself (f)"],
    ),
    "uint8 beyond a cast": (
        model(
            [node("Transpose", "x", "turned"), node("Cast", "turned", to=FLOAT)],
            inputs=[("x", UINT8, [4, 4])],
        ),
        ["Transpose on UINT8: TensorRT takes FLOAT, FLOAT16, BFLOAT16, INT32, INT64, BOOL (the_Transpose)"],
    ),
    "double": (
        model([node("Relu", "x")], [("x", TensorProto.DOUBLE, [4])], [("y", TensorProto.DOUBLE, [4])]),
        [
            "input x is DOUBLE: TensorRT has no such type",
            "output y is DOUBLE: TensorRT has no such type",
            "Relu on DOUBLE: TensorRT takes FLOAT, FLOAT16, BFLOAT16, INT32, INT64 (the_Relu)",
        ],
    ),
    "text": (
        model([node("Identity", "x")], [("x", TensorProto.STRING, [4])], [("y", TensorProto.STRING, [4])]),
        [
            "input x is STRING: TensorRT has no such type",
            "output y is STRING: TensorRT has no such type",
            "Identity on STRING: TensorRT takes FLOAT, FLOAT16, BFLOAT16, INT32, INT64, BOOL (the_Identity)",
        ],
    ),
    "opset": (model([node("Relu", "x")], opset=8), ["opset 8: TensorRT takes 9 to 24"]),
    "resize mode": (
        model([node("Resize", "x,,,sizes", mode="cubic", antialias=1)], constants={"sizes": np.array([2, 2])}),
        [
            "Resize with mode cubic: TensorRT takes nearest, linear (the_Resize)",
            "Resize with antialias 1: TensorRT takes 0 (the_Resize)",
        ],
    ),
    "dilated pooling": (
        model(
            [node("MaxPool", "x", "y", kernel_shape=[2, 2], dilations=[1, 2])],
            [("x", FLOAT, [1, 1, 8, 8])],
            [("y", FLOAT, [None] * 4)],
        ),
        ["MaxPool with dilations 1, 2: TensorRT takes 1 (the_MaxPool)"],
    ),
    "pooling of one dimension": (
        model([node("MaxPool", "x", "y", kernel_shape=[2])], [("x", FLOAT, [1, 1, 8])], [("y", FLOAT, None)]),
        ["MaxPool on 3 dimensions (the_MaxPool)"],
    ),
    "further outputs": (
        model([node("LayerNormalization", "x,scale", "y,mean")], constants={"scale": np.ones(4, np.float32)}),
        ["LayerNormalization with more than its first output (the_LayerNormalization)"],
    ),
    "axes that are no constant": (
        model([node("ReduceSum", "x,axes")], [("x", FLOAT, [4, 4]), ("axes", INT64, [1])]),
        [
            "input axes is INT64, which TensorRT before 10 binds as INT32: cast in the graph",
            "ReduceSum: input 1 must be a constant (the_ReduceSum)",
        ],
    ),
    "zero point": (
        model(
            [node("QuantizeLinear", "x,scale,zero", "q"), node("DequantizeLinear", "q,scale,zero")],
            constants={"scale": np.float32(0.1), "zero": np.int8(3)},
        ),
        [
            "QuantizeLinear: the zero point must be 0 (the_QuantizeLinear)",
            "DequantizeLinear: the zero point must be 0 (the_DequantizeLinear)",
        ],
    ),
    "no number of dimensions": (
        model([node("Relu", "x")], [("x", FLOAT, None)], [("y", FLOAT, ["n"])]),
        ["input x has no number of dimensions"],
    ),
    "nine dimensions": (
        model([node("Relu", "x")], [("x", FLOAT, [1] * 9)], [("y", FLOAT, [1] * 9)]),
        ["Relu on 9 dimensions: TensorRT takes 8 (the_Relu and 1 more)"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_found(name: str) -> None:
    bad, expected = BAD[name]
    assert list(model_findings(bad)) == expected


def test_branches_that_nothing_decides_fit() -> None:
    """A constant, and a size: TensorRT knows both before the engine runs."""
    nodes = [
        node("Size", "x", "count"),
        node("Greater", "count,zero", "any"),
        node("If", "any", "z", then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg")),
        node("If", "yes", "y", then_branch=branch("c", "Relu"), else_branch=branch("d", "Neg")),
    ]
    assert model_findings(model(nodes, constants={"zero": np.int64(0), "yes": np.array(True)})) == ()


def test_constants_of_nodes_count() -> None:
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[1])
    assert model_findings(model([axes, node("ReduceSum", "x,axes")])) == ()


def test_functions_are_looked_into() -> None:
    inside = helper.make_function(
        "other", "F", ["a"], ["b"], [node("NonZero", "a", "b")], [helper.make_opsetid("", 20)]
    )
    call = helper.make_node("F", ["x"], ["y"], domain="other")
    (found,) = model_findings(model([call], outputs=[("y", TensorProto.INT32, [None, None])], functions=[inside]))
    assert found.startswith("NonZero: the size follows from the values of x")


def test_weights_beside_the_file_are_not_needed(tmp_path: Path) -> None:
    constants = {"big": np.ones((300, 300), np.float32), "sizes": np.array([-1, 300])}
    graph = model([node("Reshape", "x,sizes", "square"), node("MatMul", "square,big")], constants=constants)
    path = tmp_path / "model.onnx"
    onnx.save(graph, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    assert findings(path) == ()
    # Without the file, the small constants are missing; the large ones nobody reads.
    kept = onnx.load(path, load_external_data=False)
    assert all(tensor.data_location == TensorProto.EXTERNAL for tensor in kept.graph.initializer)


def test_every_operator_of_the_table_is_one() -> None:
    table = msgspec.json.decode(TABLE.read_bytes(), type=Table)
    names = [name for line in table.operators.values() for name in line.split()]
    assert len(names) == len(set(names)) > 150
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    # Three that ONNX had before its first release, and one that is younger than the package here may be.
    assert set(names) - known <= {"ImageScaler", "ParametricSoftplus", "ScaledTanh", "TensorScatter"}
    types = {kind for line in (*table.operators, table.tensors) for kind in line.split()}
    assert types <= set(TensorProto.DataType.keys())
    named = {*table.attributes, *table.first_output_only.split(), *table.constant_input, *table.zero_input}
    assert named | set(table.input_rank) <= set(names)


def graphs(bundle: Bundle) -> list[str]:
    return [entry.file for entry in bundle.manifest.models.values() if entry.file.endswith(".onnx")]


def test_the_demo_bundle_fits() -> None:
    bundle = open_bundle(BUNDLE)
    assert len(graphs(bundle)) == 9
    assert {file: findings(BUNDLE / file) for file in graphs(bundle)} == dict.fromkeys(graphs(bundle), ())


def test_a_refiner_fits(refiner_bundle: Path) -> None:
    bundle = open_bundle(refiner_bundle)
    assert len(graphs(bundle)) == 3
    assert {file: findings(refiner_bundle / file) for file in graphs(bundle)} == dict.fromkeys(graphs(bundle), ())
    assert not any(entry.tensorrt for entry in bundle.manifest.models.values())


def test_what_an_export_says() -> None:
    assert fitness_lines({"a.onnx": (), "b.npz": ()}) == ("TensorRT: nothing found in the graphs that it would refuse",)
    found = {"a.onnx": ("one", "two"), "b.onnx": ()}
    assert fitness_lines(found) == ("a.onnx: TensorRT would refuse: one", "a.onnx: TensorRT would refuse: two")
