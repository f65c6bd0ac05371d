"""A look at this machine: what it has, and what each command still needs, without the import of anything heavy."""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from maskrt.kernels import __file__ as kernels_file
from maskrt.runtime import privacy
from maskrt.runtime.bundle.seal import RESEAL, SEALED
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.engines.providers import PROVIDERS, TENSORRT, open_session
from maskrt.runtime.engines.tensorrt.library import load_tensorrt
from maskrt.runtime.engines.tensorrt.memory import Cuda
from maskrt.runtime.engines.tensorrt.store import target_of
from maskrt.runtime.errors import MaskrtError

# Distribution -> module.
PACKAGES = {
    "numpy": "numpy",
    "numba": "numba",
    "pillow": "PIL",
    "msgspec": "msgspec",
    "onnxruntime": "onnxruntime",
    "onnxruntime-gpu": "onnxruntime",
    "openvino": "openvino",
    "tensorrt-cu13": "tensorrt",
    "cuda-bindings": "cuda.bindings",
    "numba-cuda": "numba_cuda",
    "av": "av",
    "opencv-python-headless": "cv2",
    "scikit-image": "skimage",
    "onnx": "onnx",
    "torch": "torch",
    "segment-anything": "segment_anything",
}
# Command -> the modules it needs, and the extras that install them.
RUNTIME = ("numpy", "numba", "PIL", "msgspec", "onnxruntime")
NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "run": (RUNTIME, "cpu"),
    "run VIDEO": ((*RUNTIME, "av"), "cpu,video"),
    "run OPENVINO": ((*RUNTIME, "openvino"), "cpu,openvino"),
    "run TENSORRT": ((*RUNTIME, "tensorrt", "cuda.bindings"), "cpu,tensorrt"),
    "refine": (RUNTIME, "cpu"),
    "verify": (RUNTIME, "cpu"),
    "eval": (RUNTIME, "cpu"),
    "eval-interactive": (RUNTIME, "cpu"),
    "annotate": ((*RUNTIME, "starlette", "uvicorn"), "cpu,annotate"),
    "serve": ((*RUNTIME, "starlette", "uvicorn"), "cpu,annotate"),
    "inspect": (("onnx",), "export"),
    "build": (("tensorrt", "cuda.bindings"), "tensorrt"),
    "scenes": (("cv2",), "demo"),
    "demo": ((*RUNTIME, "cv2", "skimage"), "cpu,demo"),
    "bench latency": ((*RUNTIME, "cv2"), "cpu,demo"),
    "bench throughput": ((*RUNTIME, "cv2"), "cpu,demo"),
    "bench": ((*RUNTIME, "cv2", "torch", "segment_anything", "onnx", "onnxscript", "safetensors"), "cpu,export,demo"),
    "export": ((*RUNTIME, "torch", "segment_anything", "onnx", "onnxscript", "safetensors"), "cpu,export"),
}
WORKS, TAKES_IT = "works", "takes it"
# An ONNX model of opset 17 that returns its input, one float: what every provider is tried on.
PROBE = bytes.fromhex(
    "08083a3b0a100a017812017922084964656e74697479120570726f62655a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a001011"
)
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8")


class MachineReport(msgspec.Struct, frozen=True):
    """Everything doctor found.

    versions: None where a package is absent. providers: maskrt's -> "works", or why it does not and what to do.
    cuda_kernels: the same of kernels.sets.cuda(). telemetry: dependency that could report to its makers -> what
    keeps it from that. problems: why the runtime cannot run.
    """

    maskrt: str
    python: str
    system: str
    versions: dict[str, str | None]
    providers: dict[str, str]
    cuda_kernels: str
    cpu: str
    cpu_features: list[str]
    cpus_online: int
    cpus_usable: int
    memory_total_mb: int | None
    memory_available_mb: int | None
    numba_threading_layers: list[str]
    numba_cache: str | None
    telemetry: dict[str, str]
    commands: dict[str, str]
    problems: list[str]

    @property
    def can_run(self) -> bool:
        """Whether `maskrt run` can work here."""
        return not self.problems


def examine(providers: Iterable[str] = PROVIDERS) -> MachineReport:
    """Look at this machine; nothing is changed.

    Args:
        providers: those to try. Each loads its engine.
    """
    versions = {name: _version(name) for name in PACKAGES}
    problems = _missing_modules(RUNTIME, "cpu")
    engine_problem = _engine_problem()
    if engine_problem and not problems:
        problems.append(engine_problem)
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: uninstall both, "
            "then pip install 'maskrt[cpu]' or 'maskrt[gpu]'"
        )
    cache = _numba_cache()
    if cache is None:
        problems.append("numba can write its cache nowhere: set NUMBA_CACHE_DIR to a writable folder")
    model, flags = _cpu()
    total, available = _memory_mb()
    return MachineReport(
        maskrt=_version("maskrt") or "not installed",
        python=platform.python_version(),
        system=platform.platform(),
        versions=versions,
        providers={name: _tried(name) for name in providers},
        cuda_kernels=_cuda_kernels(),
        cpu=model,
        cpu_features=[flag for flag in CPU_FLAGS if flag in flags],
        cpus_online=os.cpu_count() or 1,
        cpus_usable=usable_cpus(),
        memory_total_mb=total,
        memory_available_mb=available,
        numba_threading_layers=_threading_layers(),
        numba_cache=cache,
        telemetry=privacy.states(),
        commands={name: _readiness(*needs) for name, needs in NEEDS.items()},
        problems=problems,
    )


class BundleReport(msgspec.Struct, frozen=True):
    """The findings about a bundle. commands: command -> "takes it", or why not and what to use instead."""

    path: str
    kind: str
    holds: str
    schema: int
    commands: dict[str, str]


def examine_bundle(path: Path) -> BundleReport:
    """Verify a bundle and say which commands take it.

    Raises:
        BundleError: it is not whole, or not one that this version reads.
    """
    # Here: they load Numba, and doctor has to work where that is missing.
    from maskrt.runtime.bundle.bundle import open_bundle
    from maskrt.runtime.kinds.commands import COMMANDS, refusal

    bundle = open_bundle(path)
    commands = {command: refusal(bundle, command) or TAKES_IT for command in COMMANDS}
    return BundleReport(str(path), bundle.manifest.kind, bundle.manifest.holds, bundle.manifest.schema, commands)


def bundle_lines(report: BundleReport) -> list[str]:
    """Return lines for people."""
    lines = ["", f"{report.path}: of kind {report.kind}, holds {report.holds}; every file is as its sha256 says"]
    if report.schema < SEALED:
        lines.append(f"bundle.json has no digest (schema {report.schema}): {RESEAL}")
    for command, answer in report.commands.items():
        lines.append(f"maskrt {command:<19}{answer if answer == TAKES_IT else 'does not take it'}")
    return lines


def report_json(report: MachineReport, bundle: BundleReport | None = None) -> str:
    """Return indented JSON; a bundle's part is under "bundle"."""
    content = msgspec.to_builtins(report) | ({} if bundle is None else {"bundle": msgspec.to_builtins(bundle)})
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


def report_text(report: MachineReport) -> str:
    """Lines for people."""
    rows: list[tuple[str, Any]] = [
        ("maskrt", f"{report.maskrt}, Python {report.python}, {report.system}"),
        ("CPU", f"{report.cpu}; {report.cpus_usable} of {report.cpus_online} usable"),
        ("features", ", ".join(report.cpu_features) or "unknown"),
        ("memory", f"{report.memory_available_mb} of {report.memory_total_mb} MB available"),
        ("numba", f"threads: {', '.join(report.numba_threading_layers) or 'none'}; cache: {report.numba_cache}"),
        *((name, version or "-") for name, version in report.versions.items()),
    ]
    lines = [f"{name:<24}{value}" for name, value in rows]
    lines += ["", *(f"--provider {name:<15}{found}" for name, found in report.providers.items())]
    lines += ["", *(f"telemetry {name:<22}{state}" for name, state in report.telemetry.items()), ""]
    lines += [f"{'CUDA kernels':<26}{report.cuda_kernels}"]
    lines += ["", *(f"maskrt {name:<17}{readiness}" for name, readiness in report.commands.items())]
    if report.problems:
        lines += ["", *(f"problem: {problem}" for problem in report.problems)]
    return "\n".join(lines)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _missing_modules(modules: tuple[str, ...], extras: str) -> list[str]:
    missing = [module for module in modules if not _present(module)]
    return [f"missing {', '.join(missing)}: pip install 'maskrt[{extras}]'"] if missing else []


def _present(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # an import hook that blocks it, or a half-removed package
        return False


def _readiness(modules: tuple[str, ...], extras: str) -> str:
    return "".join(_missing_modules(modules, extras)) or "ready"


def _engine_problem() -> str | None:
    """Why ONNX Runtime cannot be used."""
    try:
        importlib.import_module("onnxruntime").get_available_providers()
        return None
    except Exception as error:  # a broken installation raises anything from ImportError to AttributeError
        return f"ONNX Runtime cannot be imported ({str(error).partition(chr(10))[0]}): pip install 'maskrt[cpu]'"


def _tried(provider: str) -> str:
    """WORKS where a small model loads and runs on a provider, otherwise the reason.

    Of TensorRT, for which an engine would have to be built first, what it would be built for.
    """
    try:
        if provider == TENSORRT:
            return f"{WORKS}: {target_of(load_tensorrt(), Cuda())}"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "probe.onnx"
            path.write_bytes(PROBE)
            with open_session(path, provider) as session:
                session.run({"x": np.zeros(1, np.float32)})
        return WORKS
    except MaskrtError as error:
        return str(error)
    except Exception as error:  # the engine's package: see _engine_problem
        return f"{str(error).partition(chr(10))[0]}: pip install 'maskrt[{PROVIDERS[provider].extra}]'"


def _cuda_kernels() -> str:
    """WORKS where Numba's kernels for a GPU can be compiled and run, otherwise the reason."""
    from maskrt.kernels.device import require_device

    try:
        require_device()
        return WORKS
    except (ModuleNotFoundError, RuntimeError) as error:
        return str(error)


def _cpu() -> tuple[str, set[str]]:
    """Model name and feature flags. Linux only; elsewhere the flags are unknown."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = dict(line.split(":", 1) for line in text.partition("\n\n")[0].splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return named.get("model name", platform.machine()), set(named.get("flags", named.get("Features", "")).split())


def _memory_mb() -> tuple[int | None, int | None]:
    """Total and available memory in MB (10^6 bytes); None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None, None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if len(line.split()) > 1}
    return tuple(kib[key] * 1024 // 10**6 if key in kib else None for key in ("MemTotal", "MemAvailable"))  # type: ignore[return-value]


def _threading_layers() -> list[str]:
    """The layers whose library loads, in the order in which numba prefers them."""
    layers = []
    for layer, module in (("tbb", "tbbpool"), ("omp", "omppool"), ("workqueue", "workqueue")):
        try:
            importlib.import_module(f"numba.np.ufunc.{module}")
        except ImportError:
            continue
        layers.append(layer)
    return layers


def _numba_cache() -> str | None:
    """The folder in which numba keeps compiled kernels, in its order of choice; None where none is writable."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numba"
    if sys.platform == "darwin":
        user = Path.home() / "Library" / "Caches" / "numba"
    own = os.environ.get("NUMBA_CACHE_DIR")
    for folder in [Path(own)] if own else [Path(kernels_file).parent / "__pycache__", user]:
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                return str(folder)
        except OSError:
            continue
    return None
