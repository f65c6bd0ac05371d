"""ONNX files read for what they say of themselves, not to be run."""

from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, external_data_helper

from maskrt.runtime.errors import BundleError

# Elements. Larger constants are no sizes, axes or zero points: shapes are inferred without their values.
SMALL = 1 << 16


def read_model(path: Path) -> ModelProto:
    """A model without the large weights beside its file; their types and sizes are there.

    Raises:
        BundleError: the file holds no ONNX graph.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, or whatever its build raises
        raise BundleError(f"{path} is not an ONNX file or is truncated: export it again") from error
    if not model.graph.output:  # an empty file parses
        raise BundleError(f"{path} holds no graph: export it again")
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
