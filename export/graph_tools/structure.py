"""Hash a graph without its weights: graphs that differ in their weights alone have the same hash."""

import hashlib
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

WEIGHTS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def structure_sha256(path: Path) -> str:
    """Return the hex sha256 of an ONNX file without its weights' values, doc strings and notes.

    Weights are the float initializers of more than one element; their names, types and shapes count. The values of all
    other initializers count too: integers steer shapes, and lone floats are constants of the computation. So do
    initializers of subgraphs, which no graph of maskrt has.

    Args:
        path: the file; of the weights beside it, only those that count are read.
    """
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if _is_weight(tensor):
            kept = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            tensor.CopyFrom(kept)
        else:
            if uses_external_data(tensor):
                load_external_data_for_tensor(tensor, str(path.parent))
                tensor.ClearField("data_location")
                tensor.ClearField("external_data")
            _forget_notes(tensor)
    _forget_all_notes(model)
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _is_weight(tensor: TensorProto) -> bool:
    count = 1
    for size in tensor.dims:
        count *= size
    return tensor.data_type in WEIGHTS and count > 1


def _forget_all_notes(model: ModelProto) -> None:
    """Remove the notes, which no engine computes with, and the exporter's name."""
    for field in ("producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(field)
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    for message in (model, graph, *values, *graph.node, *(a for node in graph.node for a in node.attribute)):
        _forget_notes(message)


def _forget_notes(message: Any) -> None:
    for field in ("doc_string", "metadata_props"):
        if field in message.DESCRIPTOR.fields_by_name:
            message.ClearField(field)
