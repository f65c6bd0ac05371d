"""ONNX Runtime's execution providers: their names in maskrt, their options, and what they need beside the package."""

import contextlib
import importlib
import io
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskrt.runtime.engines.tensorrt.folders import unsigned_cache
from maskrt.runtime.errors import ProviderUnavailable

# The providers that take a graph's nodes, in that order. ONNX Runtime itself adds the CPU for the rest, mostly sizes.
ONNXRUNTIME = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "ort-tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
EXTRA = {"cpu": "cpu", "cuda": "gpu", "ort-tensorrt": "ort-trt"}
TENSORRT_MAJOR = 10  # ONNX Runtime 1.31 links libnvinfer.so.10


@dataclass(frozen=True)
class DeviceMemory:
    """The memory in which a provider keeps tensors.

    device_type: ONNX Runtime's word. alignment: of a tensor's address, in bytes; kernels load 16 at a time, TensorRT
    wants 256.

    Source: NvInferRuntime.h, IExecutionContext::setTensorAddress.
    """

    device_type: str
    alignment: int


DEVICE_MEMORY = {"cuda": DeviceMemory("cuda", 16), "ort-tensorrt": DeviceMemory("cuda", 256)}  # others: the host's


@dataclass(frozen=True)
class CudaOptions:
    """The options of the CUDA provider.

    arena_extend_strategy: takes what is asked for, where the default takes powers of two, up to twice as much.
    cudnn_conv_algo_search: the default times every algorithm for every new size, and the refiner's windows have many.
    use_tf32: the default rounds the factors of float32 products to 10 bits; cuda promises float32.

    Source: onnxruntime.ai, CUDA Execution Provider, Configuration Options.
    """

    device_id: int
    arena_extend_strategy: str = "kSameAsRequested"
    cudnn_conv_algo_search: str = "HEURISTIC"
    use_tf32: int = 0


@dataclass(frozen=True)
class TensorrtOptions:
    """The options of the TensorRT provider. Its engines cover the sizes seen so far, and are built again for others.

    Source: onnxruntime.ai, TensorRT Execution Provider, Configurations.
    """

    device_id: int
    trt_engine_cache_path: str
    trt_timing_cache_path: str
    trt_engine_cache_enable: bool = True
    trt_timing_cache_enable: bool = True


def with_options(provider: str, device: int, model: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return what InferenceSession takes as `providers`.

    Args:
        provider: a key of ONNXRUNTIME.
        device: the GPU.
        model: the file whose engines are cached.
    """
    if provider == "cpu":
        return [("CPUExecutionProvider", {})]
    cuda = ("CUDAExecutionProvider", asdict(CudaOptions(device)))
    if provider == "cuda":
        return [cuda]
    cache = unsigned_cache(model, provider)
    # The kernels' timings belong to no model: all share them.
    return [("TensorrtExecutionProvider", asdict(TensorrtOptions(device, str(cache), str(cache.parent)))), cuda]


def require_offered(provider: str, onnxruntime: Any) -> None:
    """Make sure that the installed ONNX Runtime was built with a provider, and load the libraries that it links.

    Raises:
        ProviderUnavailable: it was not.
    """
    offered = onnxruntime.get_available_providers()
    if not set(ONNXRUNTIME[provider]) <= set(offered):
        raise ProviderUnavailable(
            f"{provider} requested, ONNX Runtime here offers {', '.join(offered)}: "
            f"install maskrt[{EXTRA[provider]}] in place of {_installed(onnxruntime)}, or use --provider cpu"
        )
    if provider == "ort-tensorrt":
        _load_tensorrt()
    if provider != "cpu":
        # pip installs them where no loader looks. What is missing is printed here, and require_loaded finds it anyway.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()


def require_loaded(provider: str, session: Any) -> None:
    """Make sure that a session runs on what was asked for: ONNX Runtime drops a provider whose libraries do not load.

    Raises:
        ProviderUnavailable: it was dropped.
    """
    missing = [name for name in ONNXRUNTIME[provider] if name not in session.get_providers()]
    if missing:
        needs = "CUDA and cuDNN" if provider == "cuda" else f"TensorRT {TENSORRT_MAJOR}, CUDA and cuDNN"
        raise ProviderUnavailable(
            f"{provider} requested, but {' and '.join(missing)} does not load: it needs an NVIDIA GPU with its driver, "
            f"and {needs}: pip install 'maskrt[{EXTRA[provider]}]', or use --provider cpu"
        )


def _load_tensorrt() -> None:
    # TensorRT has no option for this here, and no float32 without it. It is read when CUDA starts.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    try:
        tensorrt = importlib.import_module("tensorrt")  # loads libnvinfer, which ONNX Runtime does not find by itself
    except ImportError:
        return  # it may lie where the loader looks
    version = str(tensorrt.__version__)
    if version.partition(".")[0] != str(TENSORRT_MAJOR):
        raise ProviderUnavailable(
            f"ort-tensorrt requested, TensorRT {version} is installed, ONNX Runtime needs {TENSORRT_MAJOR}: "
            "install maskrt[ort-trt] in an environment of its own, or use --provider cuda"
        )


def _installed(onnxruntime: Any) -> str:
    return "maskrt[gpu]" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "maskrt[cpu]"
