"""ONNX segmenters as people have them: taken with the answer that they mean, or refused with the option to give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from onnx import TensorProto, helper, numpy_helper

from maskrt.export.bundles.given_onnx import declared_hw, take_given
from maskrt.export.bundles.onnx_answer import OnnxOptions
from maskrt.export.bundles.stages import take_onnx
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import InputError
from maskrt.runtime.numeric import softmax

HW = (32, 48)
PICTURE = np.random.default_rng(1).standard_normal((1, 3, *HW), np.float32)
WEIGHT = np.random.default_rng(2).standard_normal((6, 3, 1, 1)).astype(np.float32)
Nodes = list[onnx.NodeProto]
Node = helper.make_node


def save(
    file: Path,
    nodes: Nodes,
    outputs: list[str] | dict[str, int],
    *,
    maps: int = 2,
    takes: list[Any] | None = None,
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
) -> Path:
    """Write a model with the input x, the weight w of `maps` classes, and outputs of open shapes; name -> rank."""
    ranks = outputs if isinstance(outputs, dict) else dict.fromkeys(outputs, 4)
    weight = numpy_helper.from_array(WEIGHT[:maps].astype(helper.tensor_dtype_to_np_dtype(kind)), "w")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, takes or ["n", 3, *HW])],
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name == "labels" else kind, [f"{name} {i}" for i in range(rank)]
            )
            for name, rank in ranks.items()
        ],
        [weight, axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    file.write_bytes(model.SerializeToString())
    return file


CONV = Node("Conv", ["x", "w"], ["y"])
SIGMOID, SOFTMAX = Node("Sigmoid", ["y"], ["p"]), Node("Softmax", ["y"], ["p"], axis=1)


def logits_of(picture: Any, maps: int) -> Any:
    return np.einsum("bchw,kc->bkhw", picture, WEIGHT[:maps, :, 0, 0])


def one_map(picture: Any) -> Any:
    second = 1 / (1 + np.exp(-logits_of(picture, 1)))
    return np.concatenate([1 - second, second], 1)


def several(picture: Any, maps: int = 2) -> Any:
    return np.stack([softmax(one) for one in logits_of(picture, maps)])


Take = Callable[..., tuple[Any, list[str]]]


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """take(file, options) brings a model to maskrt's interface; returns its probabilities on PICTURE, and the lines."""

    def run(file: Path, **options: Any) -> tuple[Any, list[str]]:
        lines: list[str] = []
        path = tmp_path / "segmenter.onnx"
        given = take_given(file, path, HW, OnnxOptions(**options), lines.append)
        onnx.checker.check_model(path, full_check=True)
        with open_session(path) as session:
            ((name, (kind, shape)),) = session.inputs.items()
            assert kind == "tensor(float)"
            assert shape == given.shape
            (logits,) = session.run({name: PICTURE}).values()
        assert logits.shape == (1, given.logits, *HW)
        return np.stack([softmax(one) for one in logits]), lines

    return run


def test_one_logit_is_two_classes(take: Take, tmp_path: Path) -> None:
    found, lines = take(save(tmp_path / "given.onnx", [CONV], ["y"], maps=1))
    assert np.abs(found - one_map(PICTURE)).max() < 1e-6
    assert lines == ["segmenter.onnx: given.onnx as maskrt takes it, 2 classes, the second one by sigmoid"]
    logit = torch.from_numpy(logits_of(PICTURE, 1))
    assert torch.allclose(torch.from_numpy(found[:, 1:]), torch.sigmoid(logit), atol=1e-6)


@pytest.mark.parametrize("said", [None, "sigmoid", "none"])
def test_one_map_of_probabilities(take: Take, tmp_path: Path, said: str | None) -> None:
    found, _ = take(save(tmp_path / "given.onnx", [CONV, SIGMOID], ["p"], maps=1), activation=said)
    assert np.abs(found - one_map(PICTURE)).max() < 1e-6


@pytest.mark.parametrize("said", [None, "softmax", "none"])
@pytest.mark.parametrize("maps", [2, 4])
def test_maps_of_probabilities(take: Take, tmp_path: Path, said: str | None, maps: int) -> None:
    found, lines = take(save(tmp_path / "given.onnx", [CONV, SOFTMAX], ["p"], maps=maps), activation=said)
    assert np.abs(found - several(PICTURE, maps)).max() < 1e-6
    assert lines == [f"segmenter.onnx: given.onnx as maskrt takes it, {maps} classes, by their probabilities"]


def test_probabilities_of_0_and_1(take: Take, tmp_path: Path) -> None:
    """A saturated map has no logits; the answer is right to a ten-millionth."""
    sharp = [CONV, Node("Sign", ["y"], ["s"]), Node("Relu", ["s"], ["p"])]
    found, _ = take(save(tmp_path / "given.onnx", sharp, ["p"], maps=1), activation="none")
    assert np.abs(found[:, 1] - (logits_of(PICTURE, 1)[:, 0] > 0)).max() <= 2e-7


@pytest.mark.parametrize(
    ("nodes", "output", "maps", "said", "message"),
    [
        ([CONV], "y", 1, "sigmoid", r"values from -[\d.]+ to [\d.]+ on a picture, .*give --activation logits"),
        ([CONV], "y", 2, "softmax", "probabilities lie from 0 to 1: give --activation logits"),
        ([CONV], "y", 2, "none", "probabilities lie from 0 to 1: give --activation logits"),
        ([CONV, SIGMOID], "p", 2, None, r"2 maps whose probabilities sum to [\d.]+ to [\d.]+: .*exclude each other"),
        ([CONV, SIGMOID], "p", 2, "softmax", "2 maps whose probabilities sum to"),
        ([CONV, SIGMOID], "p", 2, "none", "2 maps whose probabilities sum to"),
        ([CONV, SOFTMAX], "p", 2, "sigmoid", "2 maps whose probabilities sum to"),
        ([CONV, SIGMOID], "p", 1, "softmax", "one map, whose softmax is 1 everywhere: give --activation sigmoid"),
        (
            [CONV, SIGMOID, Node("Identity", ["p"], ["q"])],
            "q",
            1,
            None,
            "could be probabilities: say with --activation",
        ),
        ([CONV], "y", 2, "tanh", "unknown activation 'tanh'; known: logits, sigmoid, softmax, none"),
    ],
)
def test_values_that_are_not_what_is_said(
    take: Take, tmp_path: Path, nodes: Nodes, output: str, maps: int, said: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        take(save(tmp_path / "given.onnx", nodes, [output], maps=maps), activation=said)


def test_probabilities_that_are_called_logits(take: Take, tmp_path: Path) -> None:
    """Whoever says so is believed: softmax of them is what such a network was trained for."""
    found, _ = take(save(tmp_path / "given.onnx", [CONV, SOFTMAX], ["p"]), activation="logits")
    assert np.abs(found - np.stack([softmax(one) for one in several(PICTURE)])).max() < 1e-6


def test_nodes_out_of_order(take: Take, tmp_path: Path) -> None:
    """In subgraphs too; what is in order stays as it is."""
    file = save(tmp_path / "given.onnx", [Node("Neg", ["y"], ["z"]), Node("Neg", ["z"], ["t"]), CONV], ["t"])
    found, lines = take(file)
    assert np.abs(found - several(PICTURE)).max() < 1e-6
    assert lines[0] == "segmenter.onnx: the nodes of given.onnx were not in order of use: sorted"
    inner = helper.make_graph(
        [Node("Neg", ["a"], ["b"]), Node("Neg", ["y"], ["a"])], "b", [], [helper.make_tensor_value_info("b", 1, None)]
    )
    zero = Node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    branches = Node("If", ["yes"], ["t"], then_branch=inner, else_branch=inner)
    found, _ = take(save(file, [branches, CONV, zero], ["t"]))
    assert np.abs(found - several(PICTURE)).max() < 1e-6
    circle = [Node("Add", ["y", "t"], ["z"]), Node("Neg", ["z"], ["t"]), CONV]
    with pytest.raises(InputError, match="its nodes need each other in a circle, Add"):
        take(save(file, circle, ["t"]))


def test_several_outputs(take: Take, tmp_path: Path) -> None:
    half = Node("AveragePool", ["y"], ["half"], kernel_shape=[2, 2], strides=[2, 2])
    file = save(tmp_path / "given.onnx", [CONV, half], ["y", "half"])
    assert np.abs(take(file)[0] - several(PICTURE)).max() < 1e-6
    shapes = r"y float32 \[1, 2, 32, 48\]"
    with pytest.raises(InputError, match=rf"several outputs: half float32 \[1, 2, 16, 24\], {shapes}: .*--output NAME"):
        take(save(file, [CONV, half], ["half", "y"]))
    assert np.abs(take(file, output="y")[0] - several(PICTURE)).max() < 1e-6
    with pytest.raises(InputError, match=rf"{shapes}, z float32 \[1, 2, 32, 48\]: say which one with --output"):
        take(save(file, [CONV, Node("Neg", ["y"], ["z"])], ["y", "z"]))
    assert np.abs(take(file, output="z")[0] - np.stack([softmax(-one) for one in logits_of(PICTURE, 2)])).max() < 1e-6
    with pytest.raises(InputError, match=r"given\.onnx: no output 'q'; outputs: y, z"):
        take(file, output="q")


def test_labels(take: Take, tmp_path: Path) -> None:
    """They are refused with the name of the logits that they are made of, which can be taken."""
    file = save(tmp_path / "given.onnx", [CONV, Node("ArgMax", ["y"], ["labels"], axis=1, keepdims=0)], {"labels": 3})
    with pytest.raises(
        InputError, match=r"returns labels, int64 \[1, 32, 48\].*give --output y, of which they are made"
    ):
        take(file)
    assert np.abs(take(file, output="y")[0] - several(PICTURE)).max() < 1e-6


@pytest.mark.parametrize("opset", [9, 11, 13, 17])
def test_channels_last(take: Take, tmp_path: Path, opset: int) -> None:
    first = Node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
    nodes = [first, Node("Conv", ["t", "w"], ["y"]), Node("Transpose", ["y"], ["z"], perm=[0, 2, 3, 1])]
    for maps, expected in ((1, one_map(PICTURE)), (4, several(PICTURE, 4))):
        file = save(tmp_path / "given.onnx", nodes, ["z"], maps=maps, takes=["n", *HW, 3], opset=opset)
        assert declared_hw(file) == HW
        assert np.abs(take(file)[0] - expected).max() < 1e-6
    assert np.abs(take(save(file, nodes[:2], ["y"], takes=[1, *HW, 3], opset=opset))[0] - several(PICTURE)).max() < 1e-6


@pytest.mark.parametrize("opset", [9, 17])
def test_a_map_without_an_axis_for_classes(take: Take, tmp_path: Path, opset: int) -> None:
    squeeze = Node("Squeeze", ["y"], ["z"], axes=[1]) if opset < 13 else Node("Squeeze", ["y", "axes"], ["z"])
    found, _ = take(save(tmp_path / "given.onnx", [CONV, squeeze], {"z": 3}, maps=1, opset=opset))
    assert np.abs(found - one_map(PICTURE)).max() < 1e-6


def test_half_precision(take: Take, tmp_path: Path) -> None:
    found, _ = take(save(tmp_path / "given.onnx", [CONV], ["y"], kind=TensorProto.FLOAT16))
    assert np.abs(found - several(PICTURE)).max() < 5e-3


def test_double_precision(take: Take, tmp_path: Path) -> None:
    """ONNX Runtime has no convolution of doubles."""
    product = Node("Einsum", ["x", "m"], ["y"], equation="bchw,kc->bkhw")
    matrix = Node("Squeeze", ["w", "last"], ["m"])
    last = Node("Constant", [], ["last"], value=numpy_helper.from_array(np.array([2, 3], np.int64)))
    found, _ = take(save(tmp_path / "given.onnx", [last, matrix, product], ["y"], kind=TensorProto.DOUBLE))
    assert np.abs(found - several(PICTURE)).max() < 1e-6


def test_blue_green_red(take: Take, tmp_path: Path) -> None:
    found, _ = take(save(tmp_path / "given.onnx", [CONV], ["y"]), bgr=True)
    assert np.abs(found - several(PICTURE[:, ::-1])).max() < 1e-6


def test_maps_that_are_smaller(take: Take, tmp_path: Path) -> None:
    file = save(tmp_path / "given.onnx", [Node("Conv", ["x", "w"], ["y"], strides=[4, 4])], ["y"])
    with pytest.raises(InputError, match=r"returns float32 \[1, 2, 8, 12\], .* or give --upsample, .*1/4 bilinearly"):
        take(file)
    found, lines = take(file, upsample=True)
    small = torch.from_numpy(logits_of(PICTURE[:, :, ::4, ::4], 2))
    expected = torch.nn.functional.interpolate(small, HW, mode="bilinear", align_corners=False).softmax(1)
    assert np.abs(found - expected.numpy()).max() < 1e-6
    assert lines[0].endswith("2 classes, resized from 1/4 of the size bilinearly")


def test_names_that_are_taken(take: Take, tmp_path: Path) -> None:
    nodes = [
        Node("Identity", ["x"], ["image"]),
        Node("Conv", ["image", "w"], ["maskrt"]),
        Node("Neg", ["maskrt"], ["m"]),
    ]
    file = save(tmp_path / "given.onnx", [*nodes, Node("Neg", ["m"], ["logits"])], ["logits"], maps=1)
    assert np.abs(take(file)[0] - one_map(PICTURE)).max() < 1e-6


def test_the_size_that_is_fixed(tmp_path: Path) -> None:
    file = tmp_path / "given.onnx"
    assert declared_hw(save(file, [CONV], ["y"], takes=[1, 3, 64, 96])) == (64, 96)
    assert declared_hw(save(file, [CONV], ["y"], takes=["n", 3, "h", 96])) is None


def test_two_stages_take_the_same(tmp_path: Path) -> None:
    """A stage keeps one logit, which its runtime takes for two classes; probabilities become two."""
    file, path = tmp_path / "given.onnx", tmp_path / "low.onnx"
    stage = take_onnx(save(file, [CONV], ["y"], maps=1, takes=["n", 3, "h", "w"]), path, 64)
    assert (stage.channels, stage.logits, path.read_bytes()) == (3, 1, file.read_bytes())
    stage = take_onnx(save(file, [CONV, SIGMOID], ["p"], maps=1, takes=["n", 3, "h", "w"]), path, 64)
    assert (stage.channels, stage.logits) == (3, 2)
    with open_session(path) as session:
        (logits,) = session.run({"image": PICTURE}).values()
    assert np.abs(softmax(logits[0]) - one_map(PICTURE)[0]).max() < 1e-6


def test_outputs_that_are_not_declared(take: Take, tmp_path: Path) -> None:
    """ONNX Runtime runs them without a shape; a sequence is no map."""
    file = save(tmp_path / "given.onnx", [CONV], ["y"])
    model = onnx.load(file)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    file.write_bytes(model.SerializeToString())
    assert np.abs(take(file)[0] - several(PICTURE)).max() < 1e-6
    model.graph.node.append(Node("SequenceConstruct", ["y"], ["s"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1, 2, *HW]))
    file.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="returns s, which is no tensor"):
        take(file)
    file.write_bytes(b"")
    with pytest.raises(InputError, match="an ONNX file without an output"):
        take(file)
