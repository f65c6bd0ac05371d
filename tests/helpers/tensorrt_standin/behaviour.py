"""The behaviour of the stand-in's classes: networks are ONNX files, and ONNX Runtime on the CPU computes them."""

import hashlib
import json
import types
import weakref
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from tensorrt_standin.cuda import Device
from tensorrt_standin.execution import context_class, sizes_of
from tensorrt_standin.refit import refit_behaviours
from tensorrt_standin.table import make

MAGIC = b"STANDIN-PLAN\n"
# onnx element type -> DataType
TYPES = {1: "FLOAT", 10: "HALF", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 16: "BF16"}


def behaviours(trt: Any, device: Device) -> dict[str, type]:
    """Class name -> its behaviour, of one module on one device. Filled in below, since they make one another."""
    logged: list[Any] = []

    def log_error(text: str) -> None:
        if logged:
            logged[-1].log(trt.ILogger.ERROR, text)

    class Silent:
        def __init__(self, *args: Any) -> None:
            pass

    class Dims:
        def __init__(self, sizes: Any = ()) -> None:
            self.sizes = tuple(int(size) for size in sizes)

    class HostMemory:
        def __init__(self, data: bytes) -> None:
            self.data, self.nbytes = data, len(data)

    class Builder:
        def __init__(self, logger: Any) -> None:
            logged.append(logger)

        def create_network(self, flags: int = 0) -> Any:
            strongly = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            if trt.__version__.startswith("10.") and not int(flags) & strongly:
                device.problem("a network that is not strongly typed: TensorRT 10 would choose the precision")
            return make(trt, "INetworkDefinition", Network())

        def create_builder_config(self) -> Any:
            return make(trt, "IBuilderConfig", Config())

        def create_optimization_profile(self) -> Any:
            return make(trt, "IOptimizationProfile", Profile())

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            return build(network._standin, config._standin)

    class Network:
        def __init__(self) -> None:
            self.model: Any = None
            self.num_inputs = 0

        def get_input(self, index: int) -> Any:
            value = self.model.graph.input[index]
            return make(trt, "ITensor", Tensor(value.name, data_type(value), sizes_of(value)))

        @property
        def num_layers(self) -> int:
            return len(self.model.graph.node)

        def get_layer(self, index: int) -> Any:
            return make(trt, "ILayer", Layer(self.model.graph.node[index]))

        def add_cast(self, input: Any, to_type: Any) -> Any:
            element = next(number for number, name in TYPES.items() if name == to_type.name)
            node = onnx.helper.make_node("Cast", [input.name], [f"{input.name}_as_{to_type.name}"], to=element)
            self.model.graph.node.insert(0, node)
            return make(trt, "ICastLayer", Layer(self.model.graph.node[0]))

    class Layer:
        def __init__(self, node: Any) -> None:
            self.node, self.num_inputs = node, len(node.input)
            # The other kinds do not matter here.
            self.type = trt.LayerType.CAST if node.op_type == "Cast" else trt.LayerType.SHUFFLE

        def get_input(self, index: int) -> Any:
            name = self.node.input[index]
            return make(trt, "ITensor", Tensor(name)) if name else None

        def get_output(self, index: int) -> Any:
            return make(trt, "ITensor", Tensor(self.node.output[index]))

        def set_input(self, index: int, tensor: Any) -> None:
            self.node.input[index] = tensor.name

    class Tensor:
        def __init__(self, name: str, dtype: Any = None, sizes: Any = ()) -> None:
            self.name, self.dtype, self.shape = name, dtype, trt.Dims(sizes)

    class Parser:
        def __init__(self, network: Any, logger: Any) -> None:
            self.network = network._standin
            self.errors: list[Any] = []

        @property
        def num_errors(self) -> int:
            return len(self.errors)

        def parse_from_file(self, model: str) -> bool:
            try:
                parsed = onnx.load(model)
            except Exception as error:
                self.errors.append(ParserError(f"not an ONNX file: {type(error).__name__}", "", ""))
                return False
            refused = [node for node in parsed.graph.node if node.op_type in device.unsupported]
            self.errors += [ParserError("operator is not supported", node.name, node.op_type) for node in refused]
            uint8 = {value.name for value in parsed.graph.input if value.type.tensor_type.elem_type == 2}
            for node in parsed.graph.node:  # what keeps the type of what it reads
                if node.op_type in ("Transpose", "Reshape", "Unsqueeze") and set(node.input) & uint8:
                    text = "TensorRT does not support UINT8 types for intermediate tensors!"
                    self.errors.append(ParserError(text, node.name, node.op_type))
            # As the real parser's importInputs: an input that has an initializer is a weight of the network.
            defaults = {tensor.name for tensor in parsed.graph.initializer}
            fed = [value for value in parsed.graph.input if value.name not in defaults]
            del parsed.graph.input[:]
            parsed.graph.input.extend(fed)
            self.network.model, self.network.num_inputs = parsed, len(fed)
            return not self.errors

        def get_error(self, index: int) -> Any:
            return make(trt, "ParserError", self.errors[index])

    class ParserError:
        def __init__(self, desc: str, name: str, operator: str) -> None:
            self.desc, self.node_name, self.node_operator = (lambda: desc), (lambda: name), (lambda: operator)

    class Profile:
        def __init__(self) -> None:
            self.shapes: dict[str, list[list[int]]] = {}

        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
            self.shapes[input] = [[int(size) for size in shape] for shape in (min, opt, max)]

    class Config:
        def __init__(self) -> None:
            self.flags_set = {"TF32"}  # on in every new config
            self.profiles: list[Profile] = []
            self.limits: dict[Any, int] = {}
            self.cache: TimingCache | None = None
            self.progress_monitor: Any = None

        def set_flag(self, flag: Any) -> None:
            self.flags_set.add(flag.name)

        def clear_flag(self, flag: Any) -> None:
            self.flags_set.discard(flag.name)

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            self.limits[pool.name] = int(pool_size)

        def add_optimization_profile(self, profile: Any) -> int:
            self.profiles.append(profile._standin)
            return len(self.profiles) - 1

        def create_timing_cache(self, data: bytes) -> Any:
            return make(trt, "ITimingCache", TimingCache(bytes(data) or timing_header()))

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            fitting = cache._standin.data.startswith(timing_header())
            self.cache = cache._standin if fitting or ignore_mismatch else self.cache
            return fitting or ignore_mismatch

        def get_timing_cache(self) -> Any:
            return make(trt, "ITimingCache", self.cache)

    class TimingCache:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def serialize(self) -> Any:
            return make(trt, "IHostMemory", HostMemory(self.data))

    def timing_header() -> bytes:
        return f"TIMINGS {trt.__version__} {gpu_name()}\n".encode()

    def gpu_name() -> str:
        """Properties of the GPU that the calling thread has chosen."""
        return device.named(device.selected)[0]

    def build(network: Network, config: Config) -> Any:
        profile = config.profiles[0].shapes if config.profiles else {}
        for value in network.model.graph.input:
            if wrong := wrong_profile(sizes_of(value), profile.get(value.name)):
                log_error(f"{value.name}: {wrong}")
                return None
        uint8 = {value.name for value in network.model.graph.input if value.type.tensor_type.elem_type == 2}
        if any(node.op_type != "Cast" and set(node.input) & uint8 for node in network.model.graph.node):
            log_error("UINT8 inputs must directly feed into a cast layer")
            return None
        if not told(config, len(network.model.graph.node)):
            return None
        if config.cache is not None:
            for node in network.model.graph.node:
                line = hashlib.sha256(node.SerializeToString()).hexdigest().encode() + b"\n"
                if line not in config.cache.data:
                    device.kernels_timed += 1
                    config.cache.data += line
        device.built += 1
        header = {"version": trt.__version__, "gpu": gpu_name(), "profile": profile, "flags": sorted(config.flags_set)}
        return plan_of(header | {"limits": config.limits}, network.model.SerializeToString())

    def plan_of(header: dict[str, Any], model: bytes) -> Any:
        return make(trt, "IHostMemory", HostMemory(MAGIC + json.dumps(header).encode() + b"\n" + model))

    def told(config: Config, layers: int) -> bool:
        """Tell the monitor of a phase and one within it; False where it wants to stop."""
        monitor = config.progress_monitor
        if monitor is None:
            return True
        monitor.phase_start("Building engine", None, 2)
        monitor.phase_start("Timing kernels", "Building engine", layers)
        going = all(monitor.step_complete("Timing kernels", step) for step in range(layers))
        monitor.phase_finish("Timing kernels")
        going = going and all(monitor.step_complete("Building engine", step) for step in range(2))
        monitor.phase_finish("Building engine")
        return going

    class Runtime:
        def __init__(self, logger: Any) -> None:
            logged.append(logger)

        def deserialize_cuda_engine(self, plan: Any) -> Any:
            device.deserialised += 1
            data = bytes(plan)
            header, _, model = data.removeprefix(MAGIC).partition(b"\n")
            found = json.loads(header) if data.startswith(MAGIC) else {}
            if (found.get("version"), found.get("gpu")) != (trt.__version__, gpu_name()):
                device.problem("an engine of another GPU or version, or none at all, was deserialised")
                log_error("the engine plan file is not compatible with this version of TensorRT")
                return None
            return make(trt, "ICudaEngine", CudaEngine(model, found))

    class CudaEngine:
        def __init__(self, model: bytes, header: dict[str, Any]) -> None:
            self.header, self.profile, self.refittable = header, header["profile"], "REFIT" in header["flags"]
            self.contexts: weakref.WeakSet[Any] = weakref.WeakSet()
            self.refits = -1  # how many times its weights were replaced
            self.load(model)
            graph = onnx.load_from_string(model).graph
            self.values = {value.name: value for value in (*graph.input, *graph.output)}
            self.inputs = [value.name for value in graph.input]
            self.outputs = [value.name for value in graph.output]
            self.gpu = device.selected
            self.known_sizes: dict[Any, dict[str, Any]] = {}  # shapes of the inputs -> output -> its shape
            self.num_io_tensors = len(self.values)

        def load(self, model: bytes) -> None:
            """Compute with a model from now on, in contexts that are there too."""
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            self.model = model
            self.refits += 1
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        def create_serialization_config(self) -> Any:
            return make(trt, "ISerializationConfig", extra["ISerializationConfig"]())

        def serialize_with_config(self, config: Any) -> Any:
            # "Remain refittable if originally so": without the flag it does not.
            flags = [
                flag for flag in self.header["flags"] if flag != "REFIT" or "INCLUDE_REFIT" in config._standin.names
            ]
            return plan_of(self.header | {"flags": flags}, self.model)

        def get_tensor_name(self, index: int) -> str:
            return (*self.inputs, *self.outputs)[index]

        def get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode.INPUT if name in self.inputs else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return data_type(self.values[name])

        def get_tensor_shape(self, name: str) -> Any:
            return trt.Dims(sizes_of(self.values[name]))

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
            return [trt.Dims(shape) for shape in self.ranges(name)]

        def ranges(self, name: str) -> Any:
            return self.profile.get(name, [sizes_of(self.values[name])] * 3)

        def create_execution_context(self) -> Any:
            if device.refuse_contexts:
                log_error("CUDA error 2: out of memory, allocating 1073741824 bytes")
                return None
            behaviour = Context(self)
            self.contexts.add(behaviour)
            context = make(trt, "IExecutionContext", behaviour)
            device.contexts.add(context)
            device.most_contexts = max(device.most_contexts, len(device.contexts))
            return context

    Context = context_class(trt, device, log_error)  # noqa: N806, RUF100

    def data_type(value: Any) -> Any:
        return trt.DataType[TYPES[value.type.tensor_type.elem_type]]

    extra = refit_behaviours(trt, device, log_error, ParserError, TYPES)
    return extra | {
        "ILogger": Silent,
        "IProgressMonitor": Silent,
        "Dims": Dims,
        "Builder": Builder,
        "OnnxParser": Parser,
        "Runtime": Runtime,
    }


def wrong_profile(sizes: tuple[int, ...], ranges: list[list[int]] | None) -> str:
    """TensorRT's complaint about an input's profile; nothing where it is good."""
    if -1 not in sizes:
        return ""
    if ranges is None:
        return "dynamic or shape inputs need a profile"
    for axis, (size, least, usual, most) in enumerate(zip(sizes, *ranges, strict=True)):
        if not 0 <= least <= usual <= most or (size != -1 and {least, usual, most} != {size}):
            return f"axis {axis} of size {size} has the profile {least}, {usual}, {most}"
    return ""


def check_plan(path: Path) -> types.SimpleNamespace:
    """The network and the options that an engine file of the stand-in was built with."""
    header = path.read_bytes().removeprefix(MAGIC).partition(b"\n")[0]
    return types.SimpleNamespace(**json.loads(header))
