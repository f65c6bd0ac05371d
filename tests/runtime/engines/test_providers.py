"""The options that ONNX Runtime gets for a GPU, checked on a stand-in: no machine that runs the tests need have one."""

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrt.runtime.engines.onnxruntime_options import DEVICE_MEMORY, EXTRA, ONNXRUNTIME
from maskrt.runtime.engines.providers import PROVIDERS, open_session
from maskrt.runtime.errors import BundleError, InputError, NetworkError, OutOfMemory, ProviderUnavailable

ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
CUDA = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": 0}
NO_MEMORY = [
    "Non-zero status code returned while running ReduceSum node. bfc_arena.cc:368 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size 939524096",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=box ; file=cuda_allocator.cc ; line=47 ; expr=cudaMalloc",
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
    "[executionContext.cpp::allocate::58] Error Code 2: OutOfMemory (Requested size was 314572800 bytes.)",
    "std::bad_alloc",
]


class Binding:
    """Keeps what is bound; every output is 4 x 8 floats at an address."""

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, tuple[Any, ...]] = {}

    def bind_input(self, name: str, *place: Any) -> None:
        self.inputs[name] = place

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self.inputs[name] = array

    def bind_output(self, name: str, *place: Any) -> None:
        self.outputs[name] = place

    def get_outputs(self) -> list[Any]:
        value = types.SimpleNamespace(
            shape=lambda: [4, 8],
            data_type=lambda: "tensor(float)",
            data_ptr=lambda: 0x7000,
            numpy=lambda: np.arange(32, dtype=np.float32).reshape(4, 8),
        )
        return [value for _ in self.outputs]


class Runtime(types.ModuleType):
    """Stands in for onnxruntime: keeps what it is given, offers and loads what it is told to."""

    def __init__(self, offered: list[str], loaded: list[str]) -> None:
        super().__init__("onnxruntime")
        self.offered, self.loaded = offered, loaded
        self.given: dict[str, Any] = {}
        self.preloaded = 0
        self.fails: Exception | None = None
        self.run_fails: Exception | None = None
        runtime = self

        class SessionOptions:
            def add_session_config_entry(self, key: str, value: str) -> None: ...

        class RunOptions:
            def add_run_config_entry(self, key: str, value: str) -> None: ...

        class InferenceSession:
            def __init__(self, path: Path, options: Any, **given: Any) -> None:
                runtime.given = {"path": path, **given}
                if runtime.fails is not None:
                    raise runtime.fails

            def get_providers(self) -> list[str]:
                return runtime.loaded

            def get_inputs(self) -> list[Any]:
                return [
                    types.SimpleNamespace(name=name, type="tensor(float)", shape=["n", 8]) for name in runtime.names
                ]

            get_outputs = get_inputs

            def get_overridable_initializers(self) -> list[Any]:
                return []

            def io_binding(self) -> Binding:
                runtime.bound = Binding()
                return runtime.bound

            def run_with_iobinding(self, binding: Binding, options: Any) -> None:
                if runtime.run_fails is not None:
                    raise runtime.run_fails

        self.names: tuple[str, ...] = ()
        self.bound = Binding()
        self.SessionOptions, self.RunOptions, self.InferenceSession = SessionOptions, RunOptions, InferenceSession

    def get_available_providers(self) -> list[str]:
        return self.offered

    def preload_dlls(self) -> None:
        print("Failed to load libcublas: nobody should see this")
        self.preloaded += 1


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runtime]:
    """runtime(offered, loaded) puts a stand-in in place of onnxruntime; TensorRT is not installed."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")  # given back after the test
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")

    def build(offered: list[str] = ALL, loaded: list[str] | None = None) -> Runtime:
        module = Runtime(offered, offered if loaded is None else loaded)
        monkeypatch.setitem(sys.modules, "onnxruntime", module)
        return module

    return build


@pytest.mark.parametrize(("provider", "device"), [("cuda", 0), ("cuda:3", 3)])
def test_cuda(runtime: Callable[..., Runtime], model: Path, provider: str, device: int, capsys: Any) -> None:
    module = runtime()
    open_session(model, provider).close()
    assert module.given == {
        "path": model.read_bytes(),
        "providers": [("CUDAExecutionProvider", {"device_id": device, **CUDA})],
        "enable_fallback": False,
    }
    assert module.preloaded == 1
    assert capsys.readouterr().out == ""
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    assert not (model.parent / "engines").exists()


def test_the_cpu_is_told_nothing(runtime: Callable[..., Runtime], model: Path) -> None:
    module = runtime(["CPUExecutionProvider"])
    open_session(model).close()
    assert module.given["providers"] == [("CPUExecutionProvider", {})]
    assert module.preloaded == 0


def test_ort_tensorrt(runtime: Callable[..., Runtime], model: Path, tmp_path: Path) -> None:
    module = runtime()
    open_session(model, "ort-tensorrt:1").close()
    (tensorrt, options), cuda = module.given["providers"]
    cache = Path(options.pop("trt_engine_cache_path"))
    assert (tensorrt, cuda) == ("TensorrtExecutionProvider", ("CUDAExecutionProvider", {"device_id": 1, **CUDA}))
    assert cache.parents[1] == tmp_path / "cache/maskrt/engines"
    assert not (model.parent / "engines").exists()
    assert options == {
        "device_id": 1,
        "trt_engine_cache_enable": True,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(cache.parent),
    }
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


def test_the_wrong_tensorrt_is_named(
    runtime: Callable[..., Runtime], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = runtime()
    tensorrt: Any = types.ModuleType("tensorrt")
    tensorrt.__version__ = "11.4.0.106"
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    with pytest.raises(
        ProviderUnavailable, match=r"TensorRT 11\.4\.0\.106 is installed, ONNX Runtime needs 10: .*ort-trt"
    ):
        open_session(model, "ort-tensorrt")
    assert not module.given
    tensorrt.__version__ = "10.16.1"
    open_session(model, "ort-tensorrt").close()
    assert module.given


@pytest.mark.parametrize(
    ("provider", "loaded", "message"),
    [
        ("cuda", ["CPUExecutionProvider"], r"CUDAExecutionProvider does not load: .*CUDA and cuDNN: .*maskrt\[gpu\]"),
        ("ort-tensorrt", ALL[1:], r"but TensorrtExecutionProvider does not load: .*TensorRT 10.*maskrt\[ort-trt\]"),
        ("ort-tensorrt", [ALL[0], ALL[2]], r"but CUDAExecutionProvider does not load: .*maskrt\[ort-trt\]"),
    ],
)
def test_a_dropped_provider_is_an_error(
    runtime: Callable[..., Runtime], model: Path, provider: str, loaded: list[str], message: str
) -> None:
    runtime(ALL, loaded)
    with pytest.raises(ProviderUnavailable, match=message):
        open_session(model, provider)


@pytest.mark.parametrize(
    ("offered", "installed"), [(["CPUExecutionProvider"], "cpu"), (["CUDAExecutionProvider"], "gpu")]
)
def test_an_absent_provider_is_an_error(
    runtime: Callable[..., Runtime], model: Path, offered: list[str], installed: str
) -> None:
    runtime(offered)
    with pytest.raises(ProviderUnavailable, match=rf"maskrt\[ort-trt\] in place of maskrt\[{installed}\]"):
        open_session(model, "ort-tensorrt")


def test_a_device_that_does_not_work_is_not_the_files_fault(runtime: Callable[..., Runtime], model: Path) -> None:
    module = runtime()
    module.fails = RuntimeError("CUDA failure 101: invalid device ordinal ; GPU=32 ; hostname=box")
    with pytest.raises(ProviderUnavailable, match="cuda requested, its device 7 does not work: CUDA failure 101"):
        open_session(model, "cuda:7")
    module.fails = RuntimeError("Protobuf parsing failed.")
    with pytest.raises(BundleError, match=r"encoder\.onnx cannot be loaded by ONNX Runtime: Protobuf"):
        open_session(model, "cuda")


@pytest.mark.parametrize("provider", ["cpu:0", "openvino:1", "cuda:", "cuda:-1", "cuda:x", "cuda:1:0", "tpu:0"])
def test_devices_that_are_none(model: Path, provider: str) -> None:
    with pytest.raises(InputError, match="goes behind cuda or ort-tensorrt or tensorrt, as in cuda:1"):
        open_session(model, provider)


@pytest.mark.parametrize("text", NO_MEMORY)
def test_a_lack_of_memory_is_told_apart(runtime: Callable[..., Runtime], model: Path, text: str) -> None:
    module = runtime()
    with open_session(model, "cuda") as session:
        module.run_fails = RuntimeError(text)
        with pytest.raises(OutOfMemory, match=r"encoder\.onnx ran out of memory \(.*points_per_batch.*--provider cpu"):
            session.run({})
        module.run_fails = RuntimeError("Invalid input shape")
        with pytest.raises(NetworkError, match=r"encoder\.onnx failed: Invalid input shape") as caught:
            session.run({})
        assert not isinstance(caught.value, OutOfMemory)
    module.fails = RuntimeError(text)
    with pytest.raises(OutOfMemory, match=r"encoder\.onnx ran out of memory"):
        open_session(model, "cuda")


@pytest.mark.parametrize(("provider", "rows_by_address"), [("cuda:2", [0, 1, 2]), ("ort-tensorrt:2", [0])])
def test_what_is_kept_is_bound_where_it_lies(
    runtime: Callable[..., Runtime], model: Path, provider: str, rows_by_address: list[int]
) -> None:
    """Rows of 32 bytes: kernels of CUDA take any multiple of 16, TensorRT multiples of 256."""
    module = runtime()
    module.names = ("x", "y")
    array = np.ones((4, 8), np.float32)
    with open_session(model, provider) as session:
        found = session.run({"x": array, "y": array}, keep_on_device=("y",))
        assert module.bound.outputs == {"x": ("cpu",), "y": ("cuda", 2)}
        assert (module.bound.inputs["x"] == array).all()
        assert isinstance(found["x"], np.ndarray)
        session.run({"x": array, "y": found["y"]})
        assert module.bound.inputs["y"] == ("cuda", 2, np.float32, [4, 8], 0x7000)
        for row in range(3):
            session.run({"x": array, "y": found["y"][row : row + 1]})
            bound = module.bound.inputs["y"]
            if row in rows_by_address:
                assert bound == ("cuda", 2, np.float32, [1, 8], 0x7000 + 32 * row)
            else:
                assert (bound == np.arange(32).reshape(4, 8)[row : row + 1]).all()
    with (
        open_session(model, "cuda:1") as session,
        pytest.raises(NetworkError, match=r"device 2, this .* device 1: open both"),
    ):
        session.run({"x": array, "y": found["y"]})


def test_every_provider_of_onnxruntime_has_an_extra() -> None:
    on_gpu = {name for name, row in PROVIDERS.items() if row.on_gpu}
    assert set(EXTRA) == set(ONNXRUNTIME) <= set(PROVIDERS)
    assert set(DEVICE_MEMORY) < on_gpu < set(PROVIDERS)
