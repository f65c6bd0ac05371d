"""The stand-in for TensorRT and CUDA: what is not in the bindings' tables fails, and so does misused memory."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tensorrt_standin.behaviour import MAGIC
from tensorrt_standin.cuda import Device
from tensorrt_standin.streams import cudaError_t, cudaStreamCaptureMode

from maskrt.runtime.engines.tensorrt.library import logger_of


@pytest.fixture
def trt(tensorrt_device: Any) -> Any:
    """The stand-in for `tensorrt`."""
    return sys.modules["tensorrt"]


def test_what_is_not_in_the_table_fails(trt: Any) -> None:
    builder = trt.Builder(trt.ILogger())
    for wrong in (
        lambda: trt.BuilderFlag.NO_SUCH_FLAG,
        lambda: builder.create_net(),
        lambda: setattr(builder, "max_batch_size", 4),
        lambda: trt.IExecutionContext(),  # made by an engine alone
        lambda: builder.create_network(0, 1),
        lambda: builder.create_network(flag=0),
        lambda: builder.create_network("strongly typed"),
        lambda: trt.Builder(None),
        lambda: builder.create_builder_config().set_flag(4),
    ):
        with pytest.raises((AttributeError, TypeError)):
            wrong()
    builder.create_network(flags=1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    with pytest.raises(NotImplementedError, match=r"no behaviour for Builder\.reset"):
        builder.reset()


def test_what_a_version_lacks_is_absent(trt: Any) -> None:
    """Code for TensorRT 10 that 11 does not run, and the other way round."""
    old = trt.__version__.startswith("10.")
    assert hasattr(trt.BuilderFlag, "FP16") == old
    assert hasattr(trt, "IInt8Calibrator") == old
    assert hasattr(trt, "AttentionIOForm") == (not old)


def test_a_monitor_must_call_its_base(trt: Any) -> None:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            self.seen = 0

    with pytest.raises(TypeError, match="must be called when overriding"):
        Monitor().phase_finish("x")


def test_a_network_whose_types_tensorrt_would_choose() -> None:
    device = Device()
    with pytest.MonkeyPatch.context() as patched:
        from tensorrt_standin import install

        trt = install(patched, "10.16", device)
        trt.Builder(trt.ILogger()).create_network()
    assert "not strongly typed" in device.problems[0]


def plan_of(trt: Any, path: Path, flags: tuple[Any, ...]) -> Any:
    """An engine of a file, serialised."""
    builder, logger = trt.Builder(trt.ILogger()), trt.ILogger()
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse_from_file(str(path))
    config = builder.create_builder_config()
    for flag in flags:
        config.set_flag(flag)
    return builder.build_serialized_network(network, config)


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., Path]:
    """add(values, name, operator) -> a file that computes y = x + values."""

    def write(values: list[float], name: str = "w", operator: str = "Add") -> Path:
        ends = [onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [len(values)]) for end in "xy"]
        weights = onnx.numpy_helper.from_array(np.array(values, np.float32), name)
        node = onnx.helper.make_node(operator, ["x", name], ["y"])
        graph = onnx.helper.make_graph([node], "add", ends[:1], ends[1:], [weights])
        path = tmp_path / f"{operator}-{name}-{values}.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    return write


def computed(engine: Any) -> list[float]:
    return engine._standin.session.run(None, {"x": np.zeros(2, np.float32)})[0].tolist()


def test_an_engine_is_refitted(trt: Any, add: Callable[..., Path]) -> None:
    runtime, logger = trt.Runtime(trt.ILogger()), trt.ILogger()
    engine = runtime.deserialize_cuda_engine(plan_of(trt, add([1.0, 2.0]), (trt.BuilderFlag.REFIT,)))
    assert engine.refittable
    refitter = trt.Refitter(engine, logger)
    assert (refitter.get_all_weights(), refitter.get_missing_weights()) == (["w"], [])
    parser = trt.OnnxParserRefitter(refitter, logger)
    for wrong in (add([1.0, 2.0, 3.0]), add([1.0, 2.0], "v"), Path("no file")):
        errors = parser.num_errors
        assert not parser.refit_from_file(str(wrong))
        assert parser.num_errors == errors + 1
    assert re.match("Only successfully refitted 0 weights out of 1", parser.get_error(1).desc())
    # Another operator goes unseen, as by the real one.
    assert parser.refit_from_file(str(add([3.0, 4.0], operator="Sub")))
    assert computed(engine) == [1, 2]
    assert refitter.refit_cuda_engine()
    assert computed(engine) == [3, 4]
    for flags, refittable in (((), False), ((trt.SerializationFlag.INCLUDE_REFIT,), True)):
        config = engine.create_serialization_config()
        for flag in flags:
            config.set_flag(flag)
        again = runtime.deserialize_cuda_engine(engine.serialize_with_config(config))
        assert (computed(again), again.refittable) == ([3, 4], refittable)


def test_a_refit_that_fails_halfway(trt: Any, tensorrt_device: Any, add: Callable[..., Path]) -> None:
    plan = plan_of(trt, add([1.0, 2.0]), (trt.BuilderFlag.REFIT,))
    logger, messages = logger_of(trt)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    refitter = trt.Refitter(engine, logger)
    assert trt.OnnxParserRefitter(refitter, logger).refit_from_file(str(add([3.0, float("nan")])))
    assert not refitter.refit_cuda_engine()
    assert "weights w hold NaN or infinity" in str(messages.error("it"))
    assert (computed(engine), tensorrt_device.refitted) == ([1, 2], 0)


def test_an_engine_that_is_not_to_be_refitted(trt: Any, add: Callable[..., Path]) -> None:
    engine = trt.Runtime(trt.ILogger()).deserialize_cuda_engine(plan_of(trt, add([1.0, 2.0]), ()))
    assert not engine.refittable
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        trt.Refitter(engine, trt.ILogger())


def test_a_refit_under_work_that_is_not_done(trt: Any, tensorrt_device: Any, add: Callable[..., Path]) -> None:
    engine = trt.Runtime(trt.ILogger()).deserialize_cuda_engine(plan_of(trt, add([1.0, 2.0]), (trt.BuilderFlag.REFIT,)))
    context, refitter = engine.create_execution_context(), trt.Refitter(engine, trt.ILogger())
    context._standin.running = True
    assert refitter.refit_cuda_engine()
    assert tensorrt_device.problems.pop() == "an engine refitted under work that is not done"


@pytest.fixture
def double(trt: Any) -> Any:
    """double() -> an execution context of y = x + x, any number of floats up to 64."""
    shape = ["n"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    header = {"version": trt.__version__, "gpu": "NVIDIA L4", "profile": {"x": [[1], [4], [64]]}, "flags": []}
    plan = MAGIC + json.dumps(header).encode() + b"\n" + model.SerializeToString()
    runtime = trt.Runtime(logger_of(trt)[0])
    return lambda: runtime.deserialize_cuda_engine(plan).create_execution_context()


def test_misused_graphs_are_noted(double: Any, tensorrt_device: Any) -> None:
    cuda = sys.modules["cuda.bindings.runtime"]
    (_, x), (_, y), (_, z) = (cuda.cudaMalloc(256) for _ in range(3))
    _, stream = cuda.cudaStreamCreateWithFlags(1)
    context = double()

    def capture() -> Any:
        cuda.cudaStreamBeginCapture(stream, cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        assert context.execute_async_v3(int(stream))
        return cuda.cudaGraphInstantiate(cuda.cudaStreamEndCapture(stream)[1], 0)[1]

    assert context.set_input_shape("x", (4,))
    assert not context.set_tensor_address("x", x + 128)
    assert "no multiple of 256" in tensorrt_device.problems.pop()
    for name, address in (("x", x), ("y", y)):
        assert context.set_tensor_address(name, address)
    capture()
    assert "before a run had prepared" in tensorrt_device.problems.pop()
    assert context.execute_async_v3(int(stream))
    cuda.cudaStreamSynchronize(stream)
    executable = capture()
    tensorrt_device.bytes_at(x, 16).view(np.float32)[:] = (1, 2, 3, 4)
    assert np.isnan(tensorrt_device.bytes_at(y, 16).view(np.float32)).all()
    cuda.cudaGraphLaunch(executable, stream)
    cuda.cudaStreamSynchronize(stream)
    assert tensorrt_device.bytes_at(y, 16).view(np.float32).tolist() == [2, 4, 6, 8]
    assert tensorrt_device.problems == []
    context.set_tensor_address("y", z)
    cuda.cudaGraphLaunch(executable, stream)
    assert "other shapes or addresses" in tensorrt_device.problems.pop()
    cuda.cudaStreamSynchronize(stream)
    context.set_tensor_address("y", y)
    tensorrt_device.last_error = cudaError_t.cudaErrorInvalidValue
    assert not context.execute_async_v3(int(stream))
    assert cuda.cudaGetLastError() == (cudaError_t.cudaErrorInvalidValue,)
    tensorrt_device.devices = 2
    cuda.cudaSetDevice(1)
    assert context.execute_async_v3(int(stream))
    assert "not its own" in tensorrt_device.problems.pop()
    cuda.cudaSetDevice(0)
    cuda.cudaStreamSynchronize(stream)
    assert cuda.cudaSetDevice(2) == (cudaError_t.cudaErrorInvalidDevice,)
    for address in (x, y, z):
        cuda.cudaFree(address)
    cuda.cudaStreamDestroy(stream)
    tensorrt_device.graphs.clear()
    tensorrt_device.executables.clear()
