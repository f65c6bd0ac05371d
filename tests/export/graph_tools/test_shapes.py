"""Sizes of everything in a graph: against ONNX Runtime, which runs it, and where a size does not follow."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from maskrt.benchmarks.reports.demo import BUNDLE
from maskrt.export.graph_tools.onnx_file import read_model
from maskrt.export.graph_tools.shapes import Shape, Value, input_shapes, walk_file, walk_model
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.engine_build.profiles import profile_of
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import CostUnknown, InputError

HEADER = '<ir_version: 10, opset_import: ["" : 20, "other" : 1]>'
ROLES = [role for role, entry in open_bundle(BUNDLE).manifest.models.items() if entry.file.endswith(".onnx")]


def parsed(text: str, **constants: Any) -> onnx.ModelProto:
    """A model from ONNX's text form, and weights."""
    model = parser.parse_model(f"{HEADER} g {text}")
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(c), name) for name, c in constants.items())
    return model


def sizes_in(model: onnx.ModelProto, **sizes: Shape) -> dict[str, Shape]:
    return {value.name: value.shape for step in walk_model(model, "g.onnx", sizes).steps for value in step.outputs}


def usual_sizes(role: str, rank: int) -> dict[str, Shape]:
    """The sizes of the demo's profile: least 0, usual 1."""
    bundle = open_bundle(BUNDLE)
    axes = input_shapes(read_model(bundle.model_path(role)))
    shapes = {name: tuple(-1 if isinstance(axis, str) else axis for axis in found) for name, found in axes.items()}
    return shapes | {name: ranges[rank] for name, ranges in profile_of(bundle, role, shapes).items()}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("role", ROLES)
def test_the_demo_has_the_sizes_that_onnx_runtime_makes(role: str, rank: int, tmp_path: Path) -> None:
    path, sizes = BUNDLE / f"{role}.onnx", usual_sizes(role, rank)
    if role == "refiner_backbone":
        sizes = {"pixels": (1, 4, 97 + 30 * rank, 96)}  # the usual 960 x 960 takes seconds
    if role == "encoder":
        sizes = {"image": (1, 512, 300, 3) if rank else (3, 201, 512, 3)}
    walk = walk_file(path, sizes)
    made = {value.name: value for step in walk.steps for value in step.outputs}
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(v.name, v.kind, None) for v in made.values())
    onnx.save(model, tmp_path / "all.onnx")
    types = {value.name: helper.tensor_dtype_to_np_dtype(value.kind) for value in walk.inputs}
    with open_session(tmp_path / "all.onnx") as session:
        found = session.run({name: np.ones(size, types[name]) for name, size in sizes.items()}, check=())
    assert len(found) == len(made) > 5
    assert {name: array.shape for name, array in found.items()} == {name: v.shape for name, v in made.items()}
    assert sum(v.nbytes for v in found.values()) == sum(value.size_bytes for value in made.values())


def test_sizes_that_follow_from_sizes() -> None:
    model = parsed(
        """(float[n, c, h, w] x) => (float[a, b, d] y) {
            shape = Shape(x)
            tail = Shape<start = -2>(x)
            cells = ReduceProd<keepdims = 1>(tail)
            heads = Gather(shape, first)
            rest = Constant<value_ints = [-1]>()
            sizes = Concat<axis = 0>(heads, rest, cells)
            rows = Reshape(x, sizes)
            count = Size(x)
            steps = Range(zero, cells_0, one)
            cells_0 = Squeeze(cells)
            y = Relu(rows)
        }""",
        first=np.array([0]),
        zero=np.int64(0),
        one=np.int64(1),
    )
    model.graph.node.insert(8, model.graph.node.pop(9))  # cells_0 before its reader
    found = sizes_in(model, x=(2, 3, 5, 7))
    assert (found["rows"], found["y"], found["steps"]) == ((2, 3, 35), (2, 3, 35), (35,))
    assert (found["tail"], found["count"], found["heads"]) == ((2,), (), (1,))


def test_a_mask_of_sizes_is_arithmetic_too() -> None:
    """Older exports make Where and Equal on sizes of expand(-1, ...)."""
    model = parsed(
        """(float[n, 1] x) => (float[a, b] y) {
            shape = Shape(x)
            same = Equal(wanted, minus)
            sizes = Where(same, shape, wanted)
            y = Expand(x, sizes)
        }""",
        wanted=np.array([-1, 4]),
        minus=np.array([-1, -1]),
    )
    assert sizes_in(model, x=(3, 1))["y"] == (3, 4)


def test_operators_without_an_inference_of_their_own() -> None:
    model = parsed(
        """(float16[1, 4, h, 2] x) => (float16[1, 4, h, 2] z) {
            y = GroupNormalization<num_groups = 2>(x, ones, ones)
            z = MeanVarianceNormalization(y)
        }""",
        ones=np.ones(2, np.float16),
    )
    (normed, other) = walk_model(model, "g.onnx", {"x": (1, 4, 9, 2)}).steps
    assert normed.outputs == (Value("y", TensorProto.FLOAT16, (1, 4, 9, 2)),)
    assert other.outputs == (Value("z", TensorProto.FLOAT16, (1, 4, 9, 2)),)


def test_functions_are_looked_into() -> None:
    model = parsed("(float[n] x) => (float[n] y) { y = other.F(x) }")
    inside = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("other", "F", ["a"], ["b"], inside, [helper.make_opsetid("", 20)]))
    (step,) = walk_model(model, "g.onnx", {"x": (3,)}).steps
    assert (step.node.op_type, step.outputs[0].shape) == ("Relu", (3,))


UNKNOWN = {
    "data": ("(float[n] x) => (int64[1, m] y) { y = NonZero(x) }", "NonZero y: the size of y follows from values"),
    "value": (
        "(float[n] x, int64[2] s) => (float[a, b] y) { r = Relu(x) y = Reshape(r, s) }",
        "Reshape y: the size of y follows from values: export it without them",
    ),
    "misfit": (
        "(float[n] x) => (float[n] y) { y = Add(x, three) }",
        r"Add y: its inputs do not fit together \(x \[2\]\): choose sizes that do",
    ),
    "foreign": ("(float[n] x) => (float[n] y) { y = other.Fast(x) }", "Fast y: it is an operator of other"),
    "newer": ("(float[n] x) => (float[n] y) { y = Swish(x) }", "Swish y: ONNX .* does not know it in opset 20"),
    "dangling": ("(float[n] x) => (float[n] y) { y = Add(x, z) }", "Add y: nothing before it makes z"),
    "branch": (
        """(float[n] x) => (float[n] y) {
            y = If(yes) <then_branch = t () => (float[n] a) { a = Relu(x) },
                         else_branch = e () => (float[n] b) { b = Neg(x) }>
        }""",
        "If y: values decide what it runs",
    ),
    "sequence": (
        "(float[n] x) => (seq(float[n]) y) { y = SequenceConstruct(x) }",
        "SequenceConstruct y: the size of y follows from values",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_size_that_is_not_known_names_its_node(case: str) -> None:
    text, message = UNKNOWN[case]
    model = parsed(text, three=np.ones(3, np.float32), yes=np.array(True))
    sizes = dict.fromkeys(input_shapes(model), (2,))
    with pytest.raises(CostUnknown, match=rf"^g.onnx: .*{message}"):
        walk_model(model, "g.onnx", sizes)


@pytest.mark.parametrize("size", [None, (2,), (2, 4), (0, 3), (-1, 3)])
def test_inputs_take_what_the_file_allows(size: Shape | None) -> None:
    model = parsed("(float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }")
    told = "nothing" if size is None else str(size).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InputError, match=rf"g.onnx: x takes \[any, 3\], not {told}"):
        walk_model(model, "g.onnx", {} if size is None else {"x": size})


def test_weights_listed_as_inputs_are_none() -> None:
    model = parsed("(float[n] x, float[1] w) => (float[n] y) { y = Mul(x, w) }", w=np.ones(1, np.float32))
    assert input_shapes(model) == {"x": ("n",)}
    walk = walk_model(model, "g.onnx", {"x": (5,)})
    assert [value.name for value in walk.inputs] == ["x"]
    assert [value.name for value in walk.weights] == ["w"]


def test_sparse_weights_are_refused() -> None:
    model = parsed("(float[3] x) => (float[3] y) { y = Add(x, w) }")
    values, indices = numpy_helper.from_array(np.ones(1, np.float32), "w"), numpy_helper.from_array(np.array([1]))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    with pytest.raises(CostUnknown, match="sparse weights"):
        walk_model(model, "g.onnx", {"x": (3,)})


@pytest.mark.parametrize(
    ("kind", "size_bytes"),
    [(TensorProto.INT4, 8), (TensorProto.UINT8, 15), (TensorProto.BFLOAT16, 30), (TensorProto.DOUBLE, 120)],
)
def test_bytes(kind: int, size_bytes: int) -> None:
    assert Value("x", kind, (3, 5)).size_bytes == size_bytes
