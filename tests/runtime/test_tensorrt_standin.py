"""The stand-in for TensorRT and CUDA: what is not in the bindings' tables fails, and so does misused memory."""

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tensorrt_standin.cuda import SIGNATURES, Device, cudaError_t, cudaMemcpyKind

from maskrt.runtime.tensorrt_library import logger_of


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


def test_misused_memory_is_noted() -> None:
    device = Device()
    cuda = device.module()
    ok = cudaError_t.cudaSuccess
    (_, memory), (_, host), (_, stream) = cuda.cudaMalloc(8), cuda.cudaMallocHost(8), cuda.cudaStreamCreateWithFlags(1)
    to_device = cudaMemcpyKind.cudaMemcpyHostToDevice
    assert cuda.cudaMemcpyAsync(memory, host, 8, to_device, stream) == (ok,)
    assert device.problems == []
    cuda.cudaFreeHost(host)
    assert "freed under work that is not done" in device.problems.pop()
    cuda.cudaStreamSynchronize(stream)
    assert "not pinned memory" in device.problems.pop()  # read after it was freed
    for wrong, told in (
        (lambda: cuda.cudaMemcpyAsync(memory, memory, 8, to_device, stream), "not pinned memory"),
        (lambda: cuda.cudaMemcpyAsync(memory + 4, memory, 8, to_device, stream), "not allocated on the device"),
        (lambda: cuda.cudaFreeHost(host), "freed twice"),
        (lambda: cuda.cudaFree(memory + 4), "freed twice"),
    ):
        assert wrong() == (cudaError_t.cudaErrorInvalidValue,)
        assert told in device.problems.pop()
    assert device.held == {"device": 1, "streams": 1}
    device.memory_bytes = 10
    assert cuda.cudaMalloc(3) == (cudaError_t.cudaErrorMemoryAllocation, None)
    with pytest.raises(TypeError):
        cuda.cudaMalloc(3, 4)
    assert cuda.cudaFree(memory) == (ok,)
    assert cuda.cudaStreamDestroy(stream) == (ok,)
    assert device.held == {}


def test_a_copy_is_done_when_it_is_waited_for() -> None:
    device = Device()
    cuda = device.module()
    (_, memory), (_, host), (_, stream) = cuda.cudaMalloc(4), cuda.cudaMallocHost(4), cuda.cudaStreamCreateWithFlags(1)
    device.host_bytes(host, 4)[:] = (1, 2, 3, 4)
    cuda.cudaMemcpyAsync(memory, host, 4, cudaMemcpyKind.cudaMemcpyHostToDevice, stream)
    assert device.bytes_at(memory, 4).tolist() == [255] * 4
    cuda.cudaStreamSynchronize(stream)
    assert device.bytes_at(memory, 4).tolist() == [1, 2, 3, 4]


def test_the_functions_are_those_of_cuda_bindings() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings")
    for name, parameters in SIGNATURES.items():
        first = inspect.getdoc(getattr(runtime, name)).splitlines()[0]
        told = re.fullmatch(rf"{name}\((.*)\)", first)[1]
        names = tuple(part.partition(":")[0].split()[-1] for part in told.split(",") if part.strip())
        assert names == parameters
    for ours in (cudaError_t, cudaMemcpyKind):
        assert all(getattr(getattr(runtime, ours.__name__), each.name) == each for each in ours)
    assert runtime.cudaStreamNonBlocking == 1
    assert runtime.cudaDeviceProp().name == b""
