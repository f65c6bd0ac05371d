"""TensorRT's Python module: its supported versions, its log, and its element types in NumPy's words."""

import functools
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from maskrt.runtime.engines.session import NO_MEMORY
from maskrt.runtime.errors import BundleError, NetworkError, OutOfMemory, ProviderUnavailable

OLDEST, BEYOND = (10, 12), (12, 0)
# DataType -> NumPy's type, and the word that ONNX Runtime has for it. NumPy has none for bfloat16 and smaller.
TYPES: dict[str, tuple[DTypeLike, str]] = {
    "FLOAT": (np.float32, "tensor(float)"),
    "HALF": (np.float16, "tensor(float16)"),
    "UINT8": (np.uint8, "tensor(uint8)"),
    "INT8": (np.int8, "tensor(int8)"),
    "INT32": (np.int32, "tensor(int32)"),
    "INT64": (np.int64, "tensor(int64)"),
    "BOOL": (np.bool_, "tensor(bool)"),
}


def load_tensorrt() -> Any:
    """Import the module `tensorrt`, of a version that maskrt supports.

    Raises:
        ProviderUnavailable: it is absent, does not load, or is too old or too new.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # OSError: the bindings are there, a library of theirs is not
        raise ProviderUnavailable(f"TensorRT cannot be loaded ({error}): pip install 'maskrt[tensorrt]'") from error
    version = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if not OLDEST <= version < BEYOND:
        raise ProviderUnavailable(
            f"Unsupported TensorRT {tensorrt.__version__}: maskrt supports 10.12 to 11; pip install 'maskrt[tensorrt]'"
        )
    return tensorrt


class Messages:
    """The last errors that TensorRT has logged: its calls log their reasons and do not return them."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque(maxlen=20)

    def add(self, text: str) -> None:
        """Remember a line."""
        self._texts.append(text.strip())

    def clear(self) -> None:
        """Forget all, before a call whose errors are wanted."""
        self._texts.clear()

    def error(self, what: str) -> NetworkError:
        """Return the error for a call that failed. what: which engine, and what failed."""
        reason = " ".join("; ".join(self._texts).split())[:400] or "TensorRT gives no reason"
        full = any(sign in reason.lower() for sign in NO_MEMORY)
        if full:
            return OutOfMemory(f"{what}: out of GPU memory: close other programs on the GPU ({reason})")
        return NetworkError(f"{what}: {reason}")


@functools.cache
def logger_of(tensorrt: Any) -> tuple[Any, Messages]:
    """Return the process's one logger, since TensorRT keeps the first that it is given, and what it has collected."""
    messages = Messages()

    class Collecting(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
                messages.add(msg)

    return Collecting(), messages


def parser_errors(parser: Any) -> str:
    """Return what an OnnxParser or OnnxParserRefitter found wrong, in one line."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    reasons = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}".strip(" :") for error in errors)
    return reasons or "no reason given"


def numpy_type(data_type: Any) -> tuple[DTypeLike, str]:
    """Return NumPy's type of a DataType, and ONNX Runtime's word for it.

    Raises:
        BundleError: NumPy has no such type.
    """
    if data_type.name not in TYPES:
        raise BundleError(f"a tensor of type {data_type.name} enters or leaves the graph: export it as float32")
    return TYPES[data_type.name]
