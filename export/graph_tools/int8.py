"""Convert a float32 graph to int8, with the ranges that its values have on real frames.

Weights are quantised for each output channel, activations per tensor, as pairs of QuantizeLinear and DequantizeLinear
around convolutions and products with weights. The outer layers, products of two activations, which is attention, and
everything between the layers stay in float32.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from maskrt.export.graph_tools.quiet import quiet

Feeds = Mapping[str, NDArray[Any]]
LAYERS = ("Conv", "Gemm", "MatMul")
# Layers at either end that stay in float32: the first read the picture itself, the last ones' result is the answer. On
# drawn scenes the demo's final masks had an IoU of 0.986 (segmenter) and 0.995 (encoder) with those of float32; with
# every layer in int8, 0.977 and 0.966.
OUTER = 2
# An activation that only cuts becomes the lower end of its convolution's range.
ACTIVATIONS = ("Relu", "Clip")
OPTIONS = {
    # A product's result goes on in float32: a norm, an activation or a sum takes it next, and none is integer here.
    "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
}


def has_inner_layers(path: Path) -> bool:
    """Return whether a graph has layers to quantise between its outer ones, without reading weights beside it."""
    return len(_learnt(onnx.load(path, load_external_data=False).graph)) > 2 * OUTER


def convert_int8(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    """Write a graph in int8.

    Args:
        source: an ONNX file whose weights are in it or beside it.
        feeds: the graph's feeds in use; its activations get the ranges of these runs.
    """
    with TemporaryDirectory(prefix="maskrt-int8-") as folder, quiet(None):
        prepared = Path(folder) / source.name
        # Batch norms go into the convolutions before them; and every value gets a type, without which it stays float32.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*LAYERS, *ACTIVATIONS],
            per_channel=True,
            # Not symmetric int8: ONNX Runtime took twice as long with it on a CPU with VNNI, and it lost more.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_left_in_float32(prepared),
            extra_options=OPTIONS,
        )


def _left_in_float32(path: Path) -> list[str]:
    """Return the names of layers that are not quantised: products of two activations, and OUTER layers at either end.

    Every node gets a name, since the quantiser finds nodes by name.
    """
    model = onnx.load(path)
    for number, node in enumerate(model.graph.node):
        node.name = f"{number}_{node.op_type}"
    onnx.save(model, path)
    inner = {node.name for node in _learnt(model.graph)[OUTER:-OUTER]}
    return [node.name for node in model.graph.node if node.op_type in LAYERS and node.name not in inner]


def _learnt(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the layers that multiply with weights. A MatMul's is one matrix: engines take no stack of many scales."""
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in LAYERS and node.input[1] in ranks]
    return [node for node in layers if node.op_type != "MatMul" or ranks[node.input[1]] == 2]


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    """Gives the quantiser feeds, one at a time."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next feeds; None at the end."""
        feeds = next(self._feeds, None)
        return None if feeds is None else dict(feeds)
