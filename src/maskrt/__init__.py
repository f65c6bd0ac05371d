"""maskrt: trained segmentation models, exported once, run lean and verified on the machine that uses them."""

import importlib
import os
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from maskrt.runtime.cpus import threads_by_quota
from maskrt.runtime.privacy import keep_private

keep_private()  # before any dependency is imported
if quota := threads_by_quota():  # Numba reads it when it is imported, and knows nothing of containers
    os.environ.setdefault("NUMBA_NUM_THREADS", str(quota))

if TYPE_CHECKING:
    from maskrt.runtime.bundle.bundle import Bundle, open_bundle
    from maskrt.runtime.errors import (
        BundleError,
        CheckpointError,
        CostUnknown,
        ExportError,
        InputError,
        MaskrtError,
        NetworkError,
        NotFinite,
        OutOfMemory,
        ProviderUnavailable,
    )
    from maskrt.runtime.interactive.clicks import Click
    from maskrt.runtime.interactive.session import open_interactive
    from maskrt.runtime.kinds.open import open_pipeline
    from maskrt.runtime.kinds.table import PipelineKind, register_kind
    from maskrt.runtime.types import Frame, Result, Segments

# Name -> the module that has it. Imported when asked for, so that `maskrt --help` does not load Numba.
_PUBLIC = {
    "open_pipeline": "maskrt.runtime.kinds.open",
    "open_interactive": "maskrt.runtime.interactive.session",
    "Click": "maskrt.runtime.interactive.clicks",
    "open_bundle": "maskrt.runtime.bundle.bundle",
    "Bundle": "maskrt.runtime.bundle.bundle",
    "PipelineKind": "maskrt.runtime.kinds.table",
    "register_kind": "maskrt.runtime.kinds.table",
    **dict.fromkeys(("Frame", "Result", "Segments"), "maskrt.runtime.types"),
    **dict.fromkeys(
        (
            "BundleError",
            "CheckpointError",
            "CostUnknown",
            "ExportError",
            "InputError",
            "MaskrtError",
            "NetworkError",
            "NotFinite",
            "OutOfMemory",
            "ProviderUnavailable",
        ),
        "maskrt.runtime.errors",
    ),
}

__all__ = [
    "Bundle",
    "BundleError",
    "CheckpointError",
    "Click",
    "CostUnknown",
    "ExportError",
    "Frame",
    "InputError",
    "MaskrtError",
    "NetworkError",
    "NotFinite",
    "OutOfMemory",
    "PipelineKind",
    "ProviderUnavailable",
    "Result",
    "Segments",
    "__version__",
    "open_bundle",
    "open_interactive",
    "open_pipeline",
    "register_kind",
]

try:
    __version__ = version("maskrt")  # pyproject.toml is the one place that says it
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
