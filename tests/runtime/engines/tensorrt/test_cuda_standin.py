"""The stand-in's GPUs: memory, streams and graphs that are misused are noted."""

import inspect
import re

import pytest
from tensorrt_standin.cuda import SIGNATURES, Device, cudaMemcpyKind
from tensorrt_standin.streams import cudaError_t, cudaStreamCaptureMode


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


def test_the_functions_are_those_of_cuda_bindings() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings")
    for name, parameters in SIGNATURES.items():
        first = inspect.getdoc(getattr(runtime, name)).splitlines()[0]  # type: ignore[union-attr]
        told = re.fullmatch(rf"{name}\((.*)\)", first)[1]  # type: ignore[index]
        names = tuple(part.partition(":")[0].split()[-1] for part in told.split(",") if part.strip())
        assert names == parameters
    for ours in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode):
        assert all(getattr(getattr(runtime, ours.__name__), each.name) == each for each in ours)
    assert runtime.cudaStreamNonBlocking == 1
    assert runtime.cudaDeviceProp().name == b""
