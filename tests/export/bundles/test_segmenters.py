"""Every kind of segmenter becomes a graph, or is refused with what was found and what was expected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

import onnx
from onnx import TensorProto, helper, numpy_helper

from maskrt.export.architectures.deeplab import build_deeplabv3plus
from maskrt.export.architectures.torchvision_deeplab import torchvision_deeplabv3_for
from maskrt.export.bundles.onnx_answer import OnnxOptions
from maskrt.export.bundles.segmenters import SEGMENTERS
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.numeric import softmax

pytestmark = pytest.mark.export

HW = (32, 48)


def quiet(_: str) -> None:
    """No report."""


def test_mobilenet(mobilenet_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "segmenter.onnx"
    classes, parity = SEGMENTERS["deeplabv3plus_mobilenet_v2"](mobilenet_file, path, HW, quiet)
    assert classes == 2
    assert parity is not None
    assert parity.max_rel < 2e-5
    with open_session(path) as session:
        assert session.inputs == {"image": ("tensor(float)", (None, 3, *HW))}
        assert session.outputs == {"logits": ("tensor(float)", (None, 2, *HW))}
        images = np.random.default_rng(0).standard_normal((3, 3, *HW), np.float32)
        expected = [session.run({"image": image[None]})["logits"] for image in images]
        assert np.allclose(session.run({"image": images})["logits"], np.concatenate(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["deeplabv3plus_mobilenet_v2", "torchvision_deeplabv3_resnet50"])
def test_one_logit(tmp_path: Path, scrambled: Callable[..., Any], kind: str) -> None:
    """A binary network's softmax is sigmoid."""
    if kind == "deeplabv3plus_mobilenet_v2":
        model = scrambled(build_deeplabv3plus("mobilenet_v2", 1, decoder_channels=16, width_mult=0.25)).eval()
    else:
        model = scrambled(
            torchvision_deeplabv3_for("resnet50", {"classifier.4.weight": torch.empty(1, 256, 1, 1)})
        ).eval()
    torch.save(model.state_dict(), tmp_path / "binary.pth")
    lines: list[str] = []
    classes, parity = SEGMENTERS[kind](tmp_path / "binary.pth", tmp_path / "s.onnx", HW, lines.append)
    assert classes == 2
    assert parity is not None
    assert lines[0] == "s.onnx: one logit becomes two classes, the second by sigmoid"
    image = torch.randn(1, 3, *HW)
    with open_session(tmp_path / "s.onnx") as session, torch.no_grad():
        found = softmax(session.run({"image": image.numpy()})["logits"][0])
        expected = model(image)[0, 0].sigmoid().numpy()
    assert np.abs(found[1] - expected).max() < 1e-5
    assert np.abs(found[0] - (1 - expected)).max() < 1e-5


def test_classes_are_refused_before_the_graph_is_made(mobilenet_file: Path, tmp_path: Path) -> None:
    def refuse(count: int) -> None:
        raise InputError(f"not {count}")

    write = SEGMENTERS["deeplabv3plus_mobilenet_v2"]
    with pytest.raises(InputError, match="not 2"):
        write(mobilenet_file, tmp_path / "s.onnx", HW, quiet, accept=refuse)
    assert not (tmp_path / "s.onnx").exists()
    with pytest.raises(InputError, match="leave them out for deeplabv3plus_mobilenet_v2"):
        write(mobilenet_file, tmp_path / "s.onnx", HW, quiet, options=OnnxOptions(output="y"))


def test_resnet50(tmp_path: Path, scrambled: Callable[..., Any]) -> None:
    torch.save(scrambled(build_deeplabv3plus("resnet50", 2)).state_dict(), tmp_path / "c.pth")
    classes, parity = SEGMENTERS["deeplabv3plus_resnet50"](tmp_path / "c.pth", tmp_path / "s.onnx", (64, 64), quiet)
    assert classes == 2
    assert parity is not None
    assert parity.max_rel < 2e-5


def test_torchvision_resnet50(tmp_path: Path, scrambled: Callable[..., Any]) -> None:
    model = scrambled(torchvision_deeplabv3_for("resnet50", {"classifier.4.weight": torch.empty(3, 256, 1, 1)}))
    torch.save({"model": model.state_dict()}, tmp_path / "c.pth")
    write = SEGMENTERS["torchvision_deeplabv3_resnet50"]
    classes, parity = write(tmp_path / "c.pth", tmp_path / "s.onnx", (65, 49), quiet)
    assert classes == 3
    assert parity is not None
    assert parity.max_rel < 2e-5


@pytest.mark.parametrize("hw", [(30, 32), (32, 50), (0, 16), (-16, 16)])
def test_input_size_that_the_network_cannot_take(mobilenet_file: Path, tmp_path: Path, hw: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="needs multiples of 16"):
        SEGMENTERS["deeplabv3plus_mobilenet_v2"](mobilenet_file, tmp_path / "s.onnx", hw, quiet)


Shape = list[int | str]
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(input shape, ...) writes an ONNX file: a 1x1 convolution from 3 to `classes` channels."""

    def write(
        takes: Shape = [1, 3, *HW],  # noqa: B006
        classes: int = 2,
        stride: int = 1,
        kind: int = TensorProto.FLOAT,
        extra_output: bool = False,
        fill: float = 0.1,
    ) -> Path:
        weight = numpy_helper.from_array(np.full((classes, 3, 1, 1), fill, np.float32), "w")
        inputs = [helper.make_tensor_value_info("x", kind, takes)]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, list("abcd"))]
        nodes = [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("Conv", ["f", "w"], ["y"], strides=[stride, stride])]
        if extra_output:
            nodes.append(helper.make_node("Relu", ["y"], ["z"]))
            outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, list("abcd")))
        graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, tmp_path / "given.onnx")
        return tmp_path / "given.onnx"

    return write


def copy(file: Path) -> int:
    classes, parity = SEGMENTERS["onnx"](file, file.with_name("segmenter.onnx"), HW, quiet)
    assert parity is None
    assert file.with_name("segmenter.onnx").read_bytes() == file.read_bytes()
    return classes


@pytest.mark.parametrize("takes", [[1, 3, *HW], ["n", 3, "h", "w"], [1, "c", 32, "w"]])
def test_onnx(make: Make, takes: Shape) -> None:
    assert copy(make(takes, classes=4)) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"takes": [1, 3, 64, 64]},
            r"takes tensor\(float\) \[1, 3, 64, 64\], expected .* \[1, 3, 32, 48\]",
        ),
        ({"takes": [2, 3, *HW]}, r"takes tensor\(float\) \[2, 3"),
        ({"kind": TensorProto.UINT8}, r"takes tensor\(uint8\)"),
        ({"stride": 2}, r"returns float32 \[1, 2, 16, 24\], expected float32 \[1, C, 32, 48\]"),
        ({"extra_output": True}, r"several outputs: y float32 .*, z float32 .*: say which one with --output NAME"),
        ({"fill": np.nan}, "does not run on .*NaN"),
    ],
)
def test_onnx_with_another_interface(make: Make, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        copy(make(**change))


def test_onnx_that_does_not_run(make: Make) -> None:
    """A dynamic file that only says at run time that it wants one channel."""
    file = make(["n", "c", "h", "w"])
    model = onnx.load(file)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((2, 1, 1, 1), np.float32), "w"))
    onnx.save(model, file)
    with pytest.raises(InputError, match=r"does not run on \[1, 3, 32, 48\]"):
        copy(file)


def test_onnx_that_answers_a_number(make: Make) -> None:
    """Its answer is looked at before what it makes of two pictures."""
    file = make(["n", 3, *HW])
    model = onnx.load(file)
    model.graph.node.append(helper.make_node("ReduceMean", ["y"], ["z"], keepdims=0))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, []))
    onnx.save(model, file)
    with pytest.raises(InputError, match=r"returns float32 \[\], expected float32 \[1, C, 32, 48\] logits"):
        copy(file)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (helper.make_node("Reshape", ["y", "sizes"], ["z"]), "it does not run on two pictures: "),
        (helper.make_node("ReduceMean", ["y"], ["z"], axes=[0]), "its answer to two pictures is not its answer"),
    ],
)
def test_onnx_whose_open_batch_axis_is_not_one(make: Make, extra: onnx.NodeProto, reason: str) -> None:
    """A file that runs on one picture alone says so with a 1, and is then run on one at a time."""
    file = make(["n", 3, *HW])
    model = onnx.load(file)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2, *HW]), "sizes"))
    model.graph.node.append(extra)
    model.graph.output[0].name = "z"
    onnx.save(model, file)
    with pytest.raises(
        InputError, match=rf"leaves the first axis of x open, but {reason}.*--input_shape 1,3,H,W .* NEW"
    ):
        copy(file)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, file)
    assert copy(file) == 2


@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph"])
def test_onnx_with_external_data(make: Make, tmp_path: Path, place: str) -> None:
    """Weights in another file are refused wherever the reference hides, even if the file is there."""
    (tmp_path / "secret.bin").write_bytes(b"\0" * 1000)
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[2, 3, 1, 1], name="w", data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.bin")
    file = make()
    model = onnx.load(file)
    if place == "initializer":
        model.graph.initializer[0].CopyFrom(tensor)
    else:
        constant = helper.make_node("Constant", [], ["unused"], value=tensor)
        if place == "subgraph":
            branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("unused", 1, None)])
            constant = helper.make_node("If", ["x"], ["u"], then_branch=branch, else_branch=branch)
        model.graph.node.append(constant)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="keeps weights in other files"):
        copy(file)


def test_onnx_that_is_none(make: Make, tmp_path: Path) -> None:
    file = make()
    whole = file.read_bytes()
    with pytest.raises(InputError, match="no such file"):
        copy(tmp_path / "no.onnx")
    for content in (b"", b"not an onnx file at all", whole[: len(whole) // 2], whole[:-3]):
        file.write_bytes(content)
        with pytest.raises(InputError):
            copy(file)


def test_onnx_with_an_unknown_operator(make: Make) -> None:
    file = make()
    model = onnx.load(file)
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, file)
    with pytest.raises(InputError, match="not a valid ONNX model"):
        copy(file)
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, file)
    with pytest.raises(BundleError, match=r"given\.onnx cannot be loaded by ONNX Runtime: .*Frobnicate"):
        copy(file)
