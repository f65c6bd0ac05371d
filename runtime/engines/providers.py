"""The table of providers: which engine runs a model, how it is opened, and what it can do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maskrt.runtime.cpus import threads_by_quota
from maskrt.runtime.engines.model_file import Entry
from maskrt.runtime.engines.onnxruntime import OnnxRuntimeSession
from maskrt.runtime.engines.onnxruntime_options import EXTRA
from maskrt.runtime.engines.openvino import OpenVinoSession
from maskrt.runtime.engines.session import BaseSession
from maskrt.runtime.engines.tensorrt.session import TensorRtSession
from maskrt.runtime.errors import InputError

TENSORRT = "tensorrt"  # the provider of TensorRT's own engines


@dataclass(frozen=True)
class Opening:
    """The options with which a session is opened.

    provider: the name of its row; device: the number of the GPU; threads: those of one run on a CPU, the engine's own
    choice where None; callers: threads that will call `run` at the same time; repeated: it runs many times a frame, so
    its memory is better kept between runs; entry: what the bundle says of the file, which must be so.
    """

    provider: str
    device: int = 0
    threads: int | None = None
    callers: int = 1
    repeated: bool = False
    entry: Entry | None = None


@dataclass(frozen=True)
class Provider:
    """One row of the table.

    package: the module that it needs. extra: the extra of maskrt that installs it. open: makes a session of an ONNX
    file. on_gpu: whether it takes the number of a GPU, as in "cuda:1". weights: how a loaded network can be given other
    weights: as inputs with defaults, by refitting the engine, or not at all.
    """

    package: str
    extra: str
    open: Callable[[Path, Opening], BaseSession]
    on_gpu: bool = False
    weights: Literal["inputs", "refit", "fixed"] = "fixed"


def _onnxruntime(path: Path, opening: Opening) -> BaseSession:
    # Any number of callers may run it.
    return OnnxRuntimeSession(path, opening.provider, opening.threads, opening.repeated, opening.device, opening.entry)


def _openvino(path: Path, opening: Opening) -> BaseSession:
    return OpenVinoSession(path, opening.provider, opening.threads, opening.callers, opening.entry)


def _tensorrt(path: Path, opening: Opening) -> BaseSession:
    return TensorRtSession(path, opening.callers, opening.device)


PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("onnxruntime", EXTRA["cpu"], _onnxruntime, weights="inputs"),
    "cuda": Provider("onnxruntime", EXTRA["cuda"], _onnxruntime, on_gpu=True, weights="inputs"),
    "ort-tensorrt": Provider("onnxruntime", EXTRA["ort-tensorrt"], _onnxruntime, on_gpu=True),
    "openvino": Provider("openvino", "openvino", _openvino),
    "openvino-bf16": Provider("openvino", "openvino", _openvino),
    TENSORRT: Provider("tensorrt", "tensorrt", _tensorrt, on_gpu=True, weights="refit"),
}


def provider_of(text: str) -> Provider:
    """Return the row of a provider, such as "cuda" or "cuda:1".

    Raises:
        InputError: maskrt has no such provider; or see split_device.
    """
    name, _ = split_device(text)
    if name not in PROVIDERS:
        raise InputError(f"unknown provider {text!r}; maskrt knows: {', '.join(PROVIDERS)}")
    return PROVIDERS[name]


def split_device(provider: str) -> tuple[str, int]:
    """Split a provider into its name and the number of its GPU: ("cuda", 1) for "cuda:1"; 0 where none is named.

    Raises:
        InputError: not a number, or a provider that has no GPU.
    """
    name, colon, number = provider.partition(":")
    if not colon:
        return name, 0
    on_gpu = [known for known, row in PROVIDERS.items() if row.on_gpu]
    if name not in on_gpu or not (number.isascii() and number.isdigit()):
        raise InputError(f"provider {provider!r}: a GPU's number goes behind {' or '.join(on_gpu)}, as in cuda:1")
    return name, int(number)


def open_session(
    path: Path,
    provider: str = "cpu",
    threads: int | None = None,
    callers: int = 1,
    repeated: bool = False,
    entry: Entry | None = None,
) -> BaseSession:
    """Load an ONNX file on the provider asked for.

    Args:
        provider: a key of PROVIDERS; "cuda:1" is the second GPU.
        threads, callers, repeated, entry: see Opening.

    Raises:
        ProviderUnavailable: the provider is not on this machine; there is no fallback.
        BundleError: the file is not a model that the engine can load, or not what `entry` says; for tensorrt, maskrt
            build has not been run.
        OutOfMemory: it does not fit into memory.
    """
    row = provider_of(provider)
    name, device = split_device(provider)
    return row.open(path, Opening(name, device, threads or threads_by_quota(), callers, repeated, entry))
