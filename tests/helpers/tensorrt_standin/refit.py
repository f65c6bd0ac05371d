"""The stand-in's refitting classes: weights of the ONNX file behind an engine are replaced by those of another.

As the real ones, they know weights by name and count alone: that the computation between them is another goes unseen.
"""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tensorrt_standin.cuda import Device
from tensorrt_standin.table import make

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


def weights_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The initializers that an engine lets be replaced."""
    return {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.data_type in FLOATS and np.prod(tensor.dims) > 1
    }


def refit_behaviours(
    trt: Any,
    device: Device,
    log_error: Callable[[str], None],
    parser_error: Callable[[str, str, str], Any],
    types: dict[int, str],
) -> dict[str, type]:
    """Class name -> its behaviour, of one module on one device."""

    class SerializationConfig:
        def __init__(self) -> None:
            self.names: set[str] = set()

        def set_flag(self, flag: Any) -> bool:
            self.names.add(flag.name)
            return True

    class Weights:
        """An array's place in memory, whose owner keeps it; without one, a type and a count."""

        def __init__(self, array: np.ndarray) -> None:
            self.array = weakref.ref(array)
            self.dtype, self.size = trt.DataType[types[onnx.helper.np_dtype_to_tensor_dtype(array.dtype)]], array.size
            if not array.flags.c_contiguous:
                device.problem("weights that do not lie one after another")

    class Prototype:
        def __init__(self, tensor: onnx.TensorProto) -> None:
            self.dtype, self.size = trt.DataType[types[tensor.data_type]], int(np.prod(tensor.dims))

    class Refitter:
        def __init__(self, engine: Any, logger: Any) -> None:
            self.engine = engine._standin
            if not self.engine.refittable:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self.model = onnx.load_from_string(self.engine.model)
            self.weights = weights_of(self.model)
            self.given: dict[str, onnx.TensorProto] = {}
            self.arrays: dict[str, Any] = {}  # given by name

        def get_all_weights(self) -> list[str]:
            return list(self.weights)

        def get_missing_weights(self) -> list[str]:
            """Those that were combined with given ones, and are not given.

            Here, all others than those of a file; of those given by name, what the test says.
            """
            if self.given:
                return [name for name in self.weights if name not in self.given]
            return [name for name in device.withheld if name not in self.arrays] if self.arrays else []

        def get_weights_prototype(self, weights_name: str) -> Any:
            return make(trt, "Weights", Prototype(self.weights[weights_name]))

        def set_named_weights(self, name: str, weights: Any) -> bool:
            given, ours = weights._standin, self.weights.get(name)
            if ours is None or (given.size, given.dtype.name) != (int(np.prod(ours.dims)), types[ours.data_type]):
                log_error(f"weights {name} do not fit the engine")
                return False
            self.arrays[name] = given.array  # a reference that does not keep it
            return True

        def read_arrays(self) -> dict[str, onnx.TensorProto]:
            """The values that the arrays hold by now."""
            found = {}
            for name, place in self.arrays.items():
                array = place()
                if array is None:
                    device.problem(f"weights {name} were freed before they were set")
                    continue
                found[name] = numpy_helper.from_array(array.reshape(tuple(self.weights[name].dims)), name)
            return found

        def refit_cuda_engine(self) -> bool:
            """May fail after a part is set, as the real one's documentation says."""
            if any(context.running for context in self.engine.contexts):
                device.problem("an engine refitted under work that is not done")
            if missing := self.get_missing_weights():
                log_error(f"missing weights: {', '.join(missing)}")
                return False
            for name, tensor in (self.given | self.read_arrays()).items():
                if not np.isfinite(numpy_helper.to_array(tensor)).all():
                    log_error(f"weights {name} hold NaN or infinity")
                    break
                self.weights[name].CopyFrom(tensor)
            else:
                device.refitted += 1
                self.engine.load(self.model.SerializeToString())
                return True
            self.engine.load(self.model.SerializeToString())
            return False

    class OnnxParserRefitter:
        def __init__(self, refitter: Any, logger: Any) -> None:
            self.refitter = refitter._standin
            self.errors: list[Any] = []

        @property
        def num_errors(self) -> int:
            return len(self.errors)

        def get_error(self, index: int) -> Any:
            return make(trt, "ParserError", self.errors[index])

        def refit_from_file(self, model: str) -> bool:
            weights = self.refitter.weights
            try:
                given = weights_of(onnx.load(Path(model)))
            except Exception as error:
                return self.refuse(f"Failed to parse the ONNX model: {type(error).__name__}")
            found = {name: tensor for name, tensor in given.items() if name in weights}
            for name, tensor in found.items():
                ours = weights[name]
                if (np.prod(ours.dims), ours.data_type) != (np.prod(tensor.dims), tensor.data_type):
                    return self.refuse(f"Failed to set named weights: {name}")
            if len(found) != len(weights):
                return self.refuse(f"Only successfully refitted {len(found)} weights out of {len(weights)}")
            self.refitter.given = {name: tensor for name, tensor in found.items() if name not in device.withheld}
            return True

        def refuse(self, why: str) -> bool:
            self.errors.append(parser_error(why, "", ""))
            return False

    return {
        "ISerializationConfig": SerializationConfig,
        "Refitter": Refitter,
        "Weights": Weights,
        "OnnxParserRefitter": OnnxParserRefitter,
    }
