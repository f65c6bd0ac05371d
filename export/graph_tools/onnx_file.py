"""Read ONNX files for the facts they hold, not to run them."""

from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, external_data_helper

from maskrt.runtime.errors import BundleError

# Elements. Larger constants are no sizes, axes or zero points, so shapes are inferred without their values.
SMALL = 1 << 16


def read_model(path: Path) -> ModelProto:
    """Read a model without the values of large weights beside its file, but with their types and sizes.

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
    """Return the number of a constant's elements."""
    count = 1
    for size in tensor.dims:
        count *= size
    return count
