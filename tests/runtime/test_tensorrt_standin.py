"""The stand-in for TensorRT and CUDA: what is not in the bindings' tables fails, and so does misused memory."""

import inspect
import re
import sys
from typing import Any

import pytest
from tensorrt_standin.cuda import SIGNATURES, Device, cudaMemcpyKind
from tensorrt_standin.streams import cudaError_t, cudaStreamCaptureMode


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
