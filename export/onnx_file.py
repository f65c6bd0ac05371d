"""ONNX files read for what they say of themselves, not to be run."""

from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, external_data_helper

# Elements. Larger constants are no sizes, axes or zero points: shapes are inferred without their values.
SMALL = 1 << 16


def read_model(path: Path) -> ModelProto:
    """A model without the large weights beside its file; their types and sizes are there."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if external_data_helper.uses_external_data(tensor) and elements(tensor) <= SMALL:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
    return model


def elements(tensor: TensorProto) -> int:
    """How many a constant has."""
    count = 1
    for size in tensor.dims:
        count *= size
    return count
