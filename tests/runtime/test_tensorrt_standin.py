"""The stand-in for TensorRT and CUDA: what is not in the bindings' tables fails, and so does misused memory."""

import inspect
import json
import re
import sys
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tensorrt_standin.behaviour import MAGIC
from tensorrt_standin.cuda import SIGNATURES, Device, cudaMemcpyKind
from tensorrt_standin.streams import cudaError_t, cudaStreamCaptureMode

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


def test_a_missing_wait_is_noted() -> None:
    """One stream writes, another reads before the first was waited for."""
    device = Device()
    cuda = device.module()
    (_, memory), (_, other), (_, host) = cuda.cudaMalloc(8), cuda.cudaMalloc(8), cuda.cudaMallocHost(8)
    (_, first), (_, second) = cuda.cudaStreamCreateWithFlags(1), cuda.cudaStreamCreateWithFlags(1)
    cuda.cudaMemcpyAsync(memory, host, 8, cudaMemcpyKind.cudaMemcpyHostToDevice, first)
    cuda.cudaMemcpyAsync(other + 4, memory + 4, 4, cudaMemcpyKind.cudaMemcpyDeviceToDevice, second)
    cuda.cudaStreamSynchronize(second)
    assert "neither was waited for" in device.problems.pop()
    cuda.cudaStreamSynchronize(first)
    cuda.cudaMemcpyAsync(other, memory, 8, cudaMemcpyKind.cudaMemcpyDeviceToDevice, second)
    cuda.cudaStreamSynchronize(second)
    assert device.problems == []


def test_what_is_captured_runs_when_it_is_launched() -> None:
    device = Device()
    cuda = device.module()
    (_, memory), (_, host), (_, stream) = cuda.cudaMalloc(4), cuda.cudaMallocHost(4), cuda.cudaStreamCreateWithFlags(1)
    device.host_bytes(host, 4)[:] = (1, 2, 3, 4)
    thread_local = cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert cuda.cudaStreamBeginCapture(stream, thread_local) == (cudaError_t.cudaSuccess,)
    cuda.cudaMemcpyAsync(memory, host, 4, cudaMemcpyKind.cudaMemcpyHostToDevice, stream)
    cuda.cudaMalloc(4)
    assert "cudaMalloc while this thread captures" in device.problems.pop()
    _, graph = cuda.cudaStreamEndCapture(stream)
    _, executable = cuda.cudaGraphInstantiate(graph, 0)
    cuda.cudaGraphDestroy(graph)
    cuda.cudaStreamSynchronize(stream)
    assert device.bytes_at(memory, 4).tolist() == [255] * 4
    for values in ((1, 2, 3, 4), (5, 6, 7, 8)):
        device.host_bytes(host, 4)[:] = values
        cuda.cudaGraphLaunch(executable, stream)
        cuda.cudaStreamSynchronize(stream)
        assert device.bytes_at(memory, 4).tolist() == list(values)
    assert device.held["executables"] == 1
    cuda.cudaGraphExecDestroy(executable)
    for wrong, told in (
        (lambda: cuda.cudaGraphExecDestroy(executable), "destroyed twice"),
        (lambda: cuda.cudaGraphLaunch(executable, stream), "no graph"),
        (lambda: cuda.cudaStreamEndCapture(stream), "did not begin"),
        (lambda: cuda.cudaStreamBeginCapture(stream, cudaStreamCaptureMode.cudaStreamCaptureModeGlobal), "of mode"),
    ):
        wrong()
        assert told in device.problems.pop()


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
    header = {"version": trt.__version__, "gpu": "NVIDIA L4", "profile": {"x": [[1], [4], [64]]}}
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


def test_the_functions_are_those_of_cuda_bindings() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings")
    for name, parameters in SIGNATURES.items():
        first = inspect.getdoc(getattr(runtime, name)).splitlines()[0]
        told = re.fullmatch(rf"{name}\((.*)\)", first)[1]
        names = tuple(part.partition(":")[0].split()[-1] for part in told.split(",") if part.strip())
        assert names == parameters
    for ours in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode):
        assert all(getattr(getattr(runtime, ours.__name__), each.name) == each for each in ours)
    assert runtime.cudaStreamNonBlocking == 1
    assert runtime.cudaDeviceProp().name == b""
