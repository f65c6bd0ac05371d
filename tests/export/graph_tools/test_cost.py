"""Costs against hand counts, against PyTorch's hooks and against a slow walk over who lives when."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from maskrt.benchmarks.reports.demo import BUNDLE
from maskrt.export.graph_tools.cost import GraphCost, OperatorCost, cost_of, graph_cost, peak_activations
from maskrt.export.graph_tools.int8 import convert_int8
from maskrt.export.graph_tools.products import PRODUCTS, UNCOUNTED
from maskrt.export.graph_tools.shapes import Shape, Walk, input_shapes, walk_model
from maskrt.runtime.errors import CostUnknown

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'


def parsed(text: str, **constants: Any) -> onnx.ModelProto:
    """A model from ONNX's text form, and weights: an array, or the size of one in float32."""
    model = parser.parse_model(f"{HEADER} g {text}")
    arrays = {name: np.zeros(c, np.float32) if isinstance(c, tuple) else c for name, c in constants.items()}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(c), name) for name, c in arrays.items())
    return model


def walked(text: str, sizes: dict[str, Shape], **constants: Any) -> Walk:
    return walk_model(parsed(text, **constants), "g.onnx", sizes)


def cost(text: str, sizes: dict[str, Shape], **constants: Any) -> GraphCost:
    return cost_of(walked(text, sizes, **constants), "g.onnx")


# What to run, sizes, weights, multiply-adds by hand.
COUNTED: dict[str, tuple[str, dict[str, Shape], dict[str, Any], int]] = {
    # 8 outputs of 4 channels and 3 x 3 taps at 10 x 8 places.
    "Conv": ("Conv<pads = [1, 1, 1, 1]>(x, w)", {"x": (1, 4, 10, 8)}, {"w": (8, 4, 3, 3)}, 8 * 4 * 9 * 10 * 8),
    # Two pictures, 5 x 4 places.
    "Conv, strides": (
        "Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w, b)",
        {"x": (2, 4, 10, 8)},
        {"w": (8, 4, 3, 3), "b": (8,)},
        2 * 8 * 4 * 9 * 5 * 4,
    ),
    # 3 taps two apart reach over 5: 6 x 4 places are left; each of the 8 outputs sees 2 of 4 channels.
    "Conv, groups and dilations": (
        "Conv<group = 2, dilations = [2, 2]>(x, w)",
        {"x": (1, 4, 10, 8)},
        {"w": (8, 2, 3, 3)},
        8 * 2 * 9 * 6 * 4,
    ),
    "Conv, depthwise, 1D": ("Conv<group = 6>(x, w)", {"x": (1, 6, 9)}, {"w": (6, 1, 3)}, 6 * 3 * 7),
    # Every one of 5 x 4 inputs of 6 channels meets 3 x 3 taps of 8 outputs.
    "ConvTranspose": (
        "ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]>(x, w)",
        {"x": (1, 6, 5, 4)},
        {"w": (6, 8, 3, 3)},
        6 * 5 * 4 * 8 * 9,
    ),
    "ConvTranspose, groups": (
        "ConvTranspose<strides = [2, 2], group = 2>(x, w)",
        {"x": (3, 6, 5, 4)},
        {"w": (6, 4, 2, 2)},
        3 * 6 * 5 * 4 * 4 * 4,
    ),
    "MatMul": ("MatMul(x, w)", {"x": (7, 5)}, {"w": (5, 3)}, 7 * 5 * 3),
    "MatMul, batch": ("MatMul(x, z)", {"x": (2, 1, 7, 5), "z": (4, 5, 3)}, {}, 2 * 4 * 7 * 5 * 3),
    "MatMul, vectors": ("MatMul(x, z)", {"x": (5,), "z": (5,)}, {}, 5),
    "Gemm": ("Gemm(x, w, b)", {"x": (7, 5)}, {"w": (5, 3), "b": (3,)}, 7 * 5 * 3),
    "Gemm, turned": ("Gemm<transA = 1, transB = 1>(x, w)", {"x": (5, 7)}, {"w": (3, 5)}, 7 * 5 * 3),
    "Einsum": ('Einsum<equation = "bij, bkj -> bik">(x, z)', {"x": (2, 7, 5), "z": (2, 3, 5)}, {}, 2 * 7 * 5 * 3),
    "Einsum, ellipsis": (
        'Einsum<equation = "...ij,...jk">(x, z)',
        {"x": (2, 1, 7, 5), "z": (1, 6, 5, 3)},
        {},
        2 * 6 * 7 * 5 * 3,
    ),
    "Einsum of one": ('Einsum<equation = "ij->ji">(x)', {"x": (7, 5)}, {}, 0),
    "no product": ("Softmax(x)", {"x": (7, 5)}, {}, 0),
}


@pytest.mark.parametrize("case", COUNTED)
def test_hand_counts(case: str) -> None:
    node, sizes, weights, by_hand = COUNTED[case]
    inputs = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in sizes.items())
    found = cost(f"({inputs}) => (float[?] y) {{ y = {node} }}", sizes, **weights)
    assert (found.multiply_adds, found.flops) == (by_hand, 2 * by_hand)
    assert found.parameters == sum(math.prod(shape) for shape in weights.values())
    assert found.weight_bytes == 4 * found.parameters
    (operator,) = found.operators.values()
    assert (operator.nodes, operator.multiply_adds) == (1, by_hand)


@pytest.mark.parametrize("case", ["Conv", "Conv, strides", "Conv, groups and dilations", "MatMul", "Gemm"])
def test_the_papers_formula_is_that_of_multiply_adds(case: str) -> None:
    node, sizes, weights, by_hand = COUNTED[case]
    shape = ",".join(map(str, sizes["x"]))
    assert cost(f"(float[{shape}] x) => (float[?] y) {{ y = {node} }}", sizes, **weights).paper_flops == by_hand


@pytest.mark.parametrize(("groups", "stride"), [(1, 2), (2, 2), (1, 3)])
def test_the_papers_formula_counts_a_transposed_convolution_by_its_output(groups: int, stride: int) -> None:
    """F * F * Cin * Hout * Wout * Cout, which is the product of the strides times what is multiplied."""
    found = cost(
        f"""(float[1, 6, 5, 4] x) => (float[?] y) {{
            y = ConvTranspose<strides = [{stride}, {stride}], group = {groups}>(x, w)
        }}""",
        {"x": (1, 6, 5, 4)},
        w=(6, 8 // groups, stride, stride),
    )
    assert found.paper_flops == stride * stride * 6 * (5 * stride) * (4 * stride) * 8 // groups
    assert found.paper_flops == found.multiply_adds * stride * stride


def test_quantised_products() -> None:
    """Around DequantizeLinear, and in the operators that take integers themselves."""
    found = cost(
        """(float[1, 4, 6, 6] x) => (float[1, 8, 6, 6] z) {
            q = QuantizeLinear(x, scale, zero)
            dx = DequantizeLinear(q, scale, zero)
            dw = DequantizeLinear<axis = 0>(w, scales, zeros)
            db = DequantizeLinear<axis = 0>(b, scales)
            y = Conv(dx, dw, db)
            qy = QLinearConv(q, scale, zero, w, scale, signed, scale, zero)
            dy = DequantizeLinear(qy, scale, zero)
            iy = ConvInteger(q, w, zero, signed)
            fy = Cast<to = 1>(iy)
            part = Add(y, dy)
            z = Add(part, fy)
        }""",
        {"x": (1, 4, 6, 6)},
        scale=np.float32(1),
        zero=np.uint8(0),
        signed=np.int8(0),
        w=np.zeros((8, 4, 1, 1), np.int8),
        b=np.zeros(8, np.int32),
        scales=np.ones(8, np.float32),
        zeros=np.zeros(8, np.int8),
    )
    each = 8 * 4 * 36
    assert {name: o.multiply_adds for name, o in found.operators.items() if o.multiply_adds} == {
        "Conv": each,
        "QLinearConv": each,
        "ConvInteger": each,
    }
    assert found.parameters == 32 + 8 + 8 + 8 + 1 + 1 + 1
    assert found.weight_bytes == 32 + 4 * 8 + 4 * 8 + 8 + 4 + 1 + 1
    # Of the four DequantizeLinear two are of weights alone, and write no activation.
    assert found.operators["DequantizeLinear"] == OperatorCost(4, 0, 4 * (4 * 36 + 8 * 36))
    integers = cost(
        """(uint8[7, 5] x) => (int32[7, 3] y, uint8[7, 3] z) {
            y = MatMulInteger(x, w)
            z = QLinearMatMul(x, scale, zero, w, scale, signed, scale, zero)
        }""",
        {"x": (7, 5)},
        scale=np.float32(1),
        zero=np.uint8(0),
        signed=np.int8(0),
        w=np.zeros((5, 3), np.int8),
    )
    assert integers.multiply_adds == 2 * 7 * 5 * 3


def test_a_graph_that_was_quantised_has_the_same_products(tmp_path: Path, rng: np.random.Generator) -> None:
    width, layers = 4, 6
    nodes = " ".join(f"v{i + 1} = Conv<pads = [1, 1, 1, 1]>(v{i}, w{i}) " for i in range(layers))
    weights = {f"w{i}": rng.standard_normal((width, width, 3, 3)).astype(np.float32) for i in range(layers)}
    model = parsed(f"(float[1, {width}, 8, 8] v0) => (float[1, {width}, 8, 8] v{layers}) {{ {nodes} }}", **weights)
    onnx.save(model, tmp_path / "fp32.onnx")
    feeds = {"v0": rng.standard_normal((1, width, 8, 8)).astype(np.float32)}
    convert_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [feeds])
    plain, lower = (graph_cost(tmp_path / f"{name}.onnx", {"v0": (1, width, 8, 8)}) for name in ("fp32", "int8"))
    assert "DequantizeLinear" in lower.operators
    assert lower.multiply_adds == plain.multiply_adds == layers * width * width * 9 * 64
    assert lower.weight_bytes < plain.weight_bytes


def test_half_precision_takes_half_of_the_bytes() -> None:
    text = "({0}[2, n] x) => ({0}[2, 3] y) {{ z = MatMul(x, w) y = Relu(z) }}"
    single = cost(text.format("float"), {"x": (2, 5)}, w=np.zeros((5, 3), np.float32))
    half = cost(text.format("float16"), {"x": (2, 5)}, w=np.zeros((5, 3), np.float16))
    assert (half.multiply_adds, half.parameters) == (single.multiply_adds, single.parameters) == (30, 15)
    assert (half.weight_bytes, single.weight_bytes) == (30, 60)
    assert (half.peak_bytes, single.peak_bytes) == (2 * (10 + 6 + 6), 4 * (10 + 6 + 6))


def test_what_follows_from_weights_alone_is_no_work_of_a_run() -> None:
    found = cost(
        """(float[2, 5] x) => (float[2, 3] y) {
            turned = Transpose(w)
            mixed = MatMul(v, turned)
            c = Constant<value_floats = [1.0, 2.0, 3.0]>()
            z = MatMul(x, mixed)
            y = Add(z, c)
        }""",
        {"x": (2, 5)},
        w=(3, 4),
        v=(5, 4),
    )
    assert found.multiply_adds == 2 * 5 * 3
    assert (found.parameters, found.weight_bytes) == (12 + 20 + 3, 4 * 35)
    assert (found.peak_bytes, found.peak_at) == (4 * (10 + 6 + 6), "Add y")
    assert found.operators["MatMul"] == OperatorCost(nodes=2, multiply_adds=30, output_bytes=24)


def test_sizes_and_masks_are_no_parameters_but_take_bytes() -> None:
    found = cost("(float[n] x) => (float[1, m] y) { y = Reshape(x, s) }", {"x": (5,)}, s=np.array([1, -1]))
    assert (found.parameters, found.weight_bytes) == (0, 16)


def test_peak_of_a_branch() -> None:
    """x 100, a 100, b 10, c 100, y 10 elements: a lives until it is added, beside b and c."""
    found = cost(
        """(float[10, 10] x) => (float[10] y) {
            a = Relu(x)
            b = ReduceSum<keepdims = 0>(a, axis)
            c = Neg(a)
            d = Add(c, b)
            y = ReduceMax<keepdims = 0>(d, axis)
        }""",
        {"x": (10, 10)},
        axis=np.array([1]),
    )
    # At Neg: x, a, b, c; at Add: x, b, c, d, for a was read for the last time. The first of equals is named.
    assert (found.peak_bytes, found.peak_at) == (4 * 310, "Neg c")


def test_an_output_lives_to_the_end_and_what_nobody_reads_does_not() -> None:
    text = "(float[10] x) => (float[10] a, float[1] z) {{ a = Relu(x) {} c = Relu(a) z = ReduceSum(c) }}"
    assert cost(text.format(""), {"x": (10,)}).peak_bytes == 4 * (10 + 10 + 10 + 1)
    assert cost(text.format("b = Neg(x)"), {"x": (10,)}).peak_bytes == 4 * (10 + 10 + 10 + 1)
    assert cost("(float[10] x) => (float[10] x2) { x2 = Identity(x) }", {"x": (10,)}).peak_bytes == 4 * 20


def random_graph(rng: np.random.Generator) -> tuple[str, dict[str, Shape]]:
    """Sums of random earlier values, some into outputs, some read by nobody."""
    shapes = {"v0": (int(rng.integers(1, 50)),), "v1": (1,)}
    lines = []
    for index in range(2, int(rng.integers(3, 30))):
        left, right = (f"v{rng.integers(0, index)}" for _ in range(2))
        size = int(rng.integers(1, 50))
        lines.append(f"s{index} = ReduceSum<keepdims = 0>({left}) t{index} = Mul({right}, s{index})")
        lines.append(f"p{index} = ReduceMax<keepdims = 1>(t{index}) v{index} = Expand(p{index}, k{size})")
        shapes[f"v{index}"] = (size,)
    outputs = [f"v{index}" for index in range(2, len(shapes)) if index == len(shapes) - 1 or rng.random() < 0.2]
    outs = ", ".join(f"float[m{name}] {name}" for name in outputs)
    return f"(float[n] v0, float[1] v1) => ({outs}) {{ {' '.join(lines)} }}", {k: shapes[k] for k in ("v0", "v1")}


@pytest.mark.parametrize("seed", range(10))
def test_peaks_of_random_graphs(seed: int) -> None:
    text, sizes = random_graph(np.random.default_rng(seed))
    walk = walked(text, sizes, **{f"k{size}": np.array([size]) for size in range(1, 50)})
    peaks = []
    for now in range(len(walk.steps)):  # who is there while a node runs, found anew for each
        born = {v.name: v for step in walk.steps[: now + 1] for v in step.outputs}
        read_later = {v.name for step in walk.steps[now:] for v in step.inputs if v is not None}
        made_now = {v.name for v in walk.steps[now].outputs}
        there = [v for v in born.values() if v.name in read_later | made_now | walk.outputs]
        peaks.append(sum(v.size_bytes for v in (*walk.inputs, *there)))
    most = max(peaks)
    assert peak_activations(walk) == (most, walk.steps[peaks.index(most)].label)


def test_products_that_are_not_counted_are_refused() -> None:
    assert not set(UNCOUNTED) & set(PRODUCTS)
    with pytest.raises(CostUnknown, match=r"^g.onnx: RNN y: its products are not counted"):
        cost(
            "(float[2, 1, 3] x) => (float[?] y) { y, h = RNN<hidden_size = 4>(x, w, r) }",
            {"x": (2, 1, 3)},
            w=(1, 4, 3),
            r=(1, 4, 4),
        )
    with pytest.raises(CostUnknown, match=r"^g.onnx: Einsum y: .* order of 3 operands"):
        cost('(float[2, 2] x) => (float[?] y) { y = Einsum<equation = "ab,bc,cd">(x, x, x) }', {"x": (2, 2)})


def test_weights_beside_the_file_are_not_needed(tmp_path: Path) -> None:
    """A graph of 40 GB of weights that do not exist: sizes are all that is read."""
    model = parsed("(float[n, 100000] x) => (float[n, 100000] y) { y = MatMul(x, w) }")
    weights = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[100000, 100000], data_location=TensorProto.EXTERNAL
    )
    weights.external_data.add(key="location", value="g.onnx.data")
    model.graph.initializer.append(weights)
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    found = graph_cost(tmp_path / "g.onnx", {"x": (3, 100000)})
    assert (found.weight_bytes, found.multiply_adds) == (4 * 10**10, 3 * 10**10)


def test_small_values_beside_the_file_are_read(tmp_path: Path) -> None:
    model = parsed("(float[n] x) => (float[a, b] y) { y = Reshape(x, s) }", s=np.array([2, -1]))
    onnx.save(model, tmp_path / "g.onnx", save_as_external_data=True, location="g.onnx.data", size_threshold=0)
    assert graph_cost(tmp_path / "g.onnx", {"x": (6,)}).peak_bytes == 48


def test_the_demo_segmenter_is_what_pytorch_runs() -> None:
    torch = pytest.importorskip("torch", reason="needs maskrt[export]")
    from safetensors.torch import load_file

    from maskrt.export.architectures.deeplab import deeplabv3plus_for

    state = load_file(BUNDLE.parent / "weights/segmenter.safetensors")
    with torch.device("meta"):
        network = deeplabv3plus_for("resnet50", state).eval()
    counted = []

    def hook(layer: Any, inputs: tuple[Any], output: Any) -> None:
        taps = layer.kernel_size[0] * layer.kernel_size[1]
        counted.append(output.numel() * layer.in_channels // layer.groups * taps)

    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert not any(isinstance(layer, torch.nn.Linear | torch.nn.ConvTranspose2d) for layer in network.modules())
    for layer in layers:
        layer.register_forward_hook(hook)
    with torch.no_grad():
        network(torch.empty(1, 3, 512, 512, device="meta"))
    found = graph_cost(BUNDLE / "segmenter.onnx", {"image": (1, 3, 512, 512)})
    assert len(counted) == found.operators["Conv"].nodes
    assert found.multiply_adds == sum(counted) > 10**9


@pytest.mark.parametrize("hw", [(128, 128), (128, 72), (33, 128)])
def test_a_sam_is_what_pytorch_runs(
    encoder_file: Path, decoder_file: Path, small_sam: Any, hw: tuple[int, int]
) -> None:
    """PyTorch's own counter of FLOPs, on the modules that were exported: products of every kind, and attention."""
    torch = pytest.importorskip("torch", reason="needs maskrt[export]")
    from torch.utils.flop_counter import FlopCounterMode

    from maskrt.export.architectures.sam import EncoderGraph
    from maskrt.export.architectures.vit_encoder import BandedViT
    from maskrt.export.graphs.decoder import DecoderGraph

    # Made before they are counted: a decoder computes the image's places, which are weights in the file.
    encoder, decoder = EncoderGraph(small_sam, BandedViT(small_sam.image_encoder)), DecoderGraph(small_sam)
    named = {"batch": 2, "height": hw[0], "width": hw[1], "prompts": 5, "points": 3, "masks": 1}
    for module, file in ((encoder, encoder_file), (decoder, decoder_file)):
        axes = input_shapes(onnx.load(file))
        sizes = {name: tuple(a if isinstance(a, int) else named[a] for a in shape) for name, shape in axes.items()}
        dtype = torch.uint8 if module is encoder else torch.float32
        feeds = [torch.ones(size, dtype=dtype) for size in sizes.values()]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module.eval()(*feeds)
        assert graph_cost(file, sizes).flops == counter.get_total_flops() > 0
