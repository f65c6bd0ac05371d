"""Keeps every dependency from reporting to its makers.

`import maskrt` does it, before any of them is imported, so that the command line, programs, their child processes,
tests and benchmarks all have it. A variable that the user has set to something else is overruled: "nothing leaves" is a
promise, and no setting.
"""

import importlib.machinery
import importlib.util
import os
import sys
import warnings
from dataclasses import dataclass


@dataclass(frozen=True)
class Reporter:
    """A dependency that reports home. variable, value: what keeps it from that; None: the module itself is blocked."""

    module: str
    reports: str
    variable: str | None = None
    value: str = "1"


REPORTERS = (
    Reporter("onnxruntime", "a device id and events, from version 1.31", "ORT_DISABLE_TELEMETRY"),
    # OpenVINO's converter imports it, and goes on without.
    Reporter("openvino_telemetry", "events of OpenVINO's converter"),
    Reporter("huggingface_hub", "the libraries in use", "HF_HUB_DISABLE_TELEMETRY"),
    Reporter("selenium", "usage statistics of its driver manager", "SE_AVOID_STATS", "true"),
)
_too_late: set[str] = set()


def keep_private() -> None:
    """Turn off every reporter. One that was imported before, and may report, is named in a warning."""
    for reporter in REPORTERS:
        loaded = sys.modules.get(reporter.module) is not None
        off = reporter.variable is not None and os.environ.get(reporter.variable) == reporter.value
        if loaded and not off:
            _too_late.add(reporter.module)
            warnings.warn(
                f"{reporter.module} was imported before maskrt and may report to its makers: import maskrt first, or "
                f"{'uninstall it' if reporter.variable is None else f'set {reporter.variable}={reporter.value}'}",
                RuntimeWarning,
                stacklevel=3,
            )
        if reporter.variable is not None:
            os.environ[reporter.variable] = reporter.value
        else:
            sys.modules.setdefault(reporter.module, None)  # type: ignore[arg-type]
    os.environ["DO_NOT_TRACK"] = "1"  # the name on which several tools agree


def states() -> dict[str, str]:
    """Return each reporter that is installed, and what keeps it from reporting."""
    return {reporter.module: _state(reporter) for reporter in REPORTERS if _installed(reporter.module)}


def _state(reporter: Reporter) -> str:
    if reporter.module in _too_late:
        return f"may report {reporter.reports}: it was imported before maskrt"
    how = "its module is blocked" if reporter.variable is None else f"{reporter.variable}={reporter.value}"
    return f"off: {how}; it would report {reporter.reports}"


def _installed(module: str) -> bool:
    if module in sys.modules and sys.modules[module] is None:  # blocked by us: find_spec would not look
        return importlib.machinery.PathFinder.find_spec(module) is not None
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
