"""Read ONNX files: ours for the facts they hold, and somebody else's, which may hold anything."""

from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, external_data_helper

from maskrt.runtime.bundle.bundle import MAX_MODEL_BYTES
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.files import read_plain

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


def read_given(path: Path) -> tuple[bytes, ModelProto]:
    """Read somebody else's model, which has all its weights inside; return the file's bytes too.

    Raises:
        InputError: it is no plain file, no ONNX file, too large, or keeps weights in other files.
    """
    data = read_plain(path, MAX_MODEL_BYTES)
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf's DecodeError, or whatever its build raises
        raise InputError(f"{path} is not an ONNX file or is truncated: export it again") from error
    if not model.graph.output:  # an empty file parses
        raise InputError(f"{path} is an ONNX file without an output: export it again")
    if _has_external_data(model):
        raise InputError(f"{path} keeps weights in other files: save it as one with onnx.save(onnx.load(FILE), NEW)")
    return data, model


def check_given(path: Path, model: ModelProto) -> None:
    """Raise InputError unless somebody else's model is valid. path: the file that an error names."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path} is not a valid ONNX model: {reason}") from error


def _has_external_data(model: ModelProto) -> bool:
    """Return whether any tensor, in any subgraph, function or attribute, names a file."""
    external = TensorProto.DataLocation.Value("EXTERNAL")

    def tensors_of(message: Any) -> Any:
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            # A repeated field iterates over its messages; a single one is the message itself.
            for child in value if hasattr(value, "__len__") else (value,):
                if isinstance(child, TensorProto):
                    yield child
                else:
                    yield from tensors_of(child)

    return any(tensor.data_location == external or tensor.external_data for tensor in tensors_of(model))
