"""The case `latency`: the time of one frame through a bundle's whole pipeline, one frame at a time.

Providers take turns, a frame each, and each has its own process. The percentiles are over all measured frames. Frames
differ: the number of masks in a frame is part of its time.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from maskrt.benchmarks.cases.soss_models import require
from maskrt.benchmarks.harness.measure import Row, run_pairs
from maskrt.benchmarks.harness.recording import FrameByFrame, Setup, draw_recording
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, environment, total
from maskrt.benchmarks.reports.demo import HELD_OUT, demo_bundle
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.errors import InputError
from maskrt.runtime.types import Report

NEEDS = ("cv2", "onnxruntime")


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure every requested provider; `pairs` is the number of frames that count.

    Raises:
        ModuleNotFoundError: a module of the extras is missing.
        InputError: there is no provider, or the bundle cannot be used.
        WorkerError: a provider is not there, or failed.
    """
    require(NEEDS)
    if not options.providers:
        raise InputError("latency needs a provider: --provider cpu")
    bundle = options.bundle or demo_bundle()
    open_bundle(bundle).expect(SossManifest)
    with TemporaryDirectory(prefix="maskrt-bench-") as folder:
        recording = draw_recording(HELD_OUT, options.frames, Path(folder) / "frames.npy")
        report(f"{options.frames} scenes drawn")
        contestants = {
            provider: FrameByFrame(Setup(bundle, recording, provider, options.threads))
            for provider in options.providers
        }
        measured = run_pairs(contestants, options.pairs, options.warmup, report)
    first = options.providers[0]
    return CaseReport(
        case="latency",
        environment=environment(options.threads or usable_cpus()),
        rows=tuple(with_p99(row, measured.seconds[row.name]) for row in measured.rows),
        ratios={f"{first}_vs_{other}": spread for other, spread in measured.ratios.items()},
        equality=total({}),
        equality_by_size={},
        notes=(
            f"one frame at a time: {options.pairs} after {options.warmup} warm-ups, over {options.frames} held-out "
            f"scenes at 1920x1080 (seeds {HELD_OUT} to {HELD_OUT + options.frames - 1}) with their regions of interest",
            f"bundle: {bundle.name}, {open_bundle(bundle).manifest.note or 'no note'}",
            "ratio A_vs_B: B's time / A's, of the same frame measured in turns",
            "peak_rss_mb: of the worker, with its models; from loading to the last run",
        ),
    )


def with_p99(row: Row, seconds: np.ndarray) -> Row:
    """Add the 99th percentile to a row. Like p95 it is a measured time; of fewer than 100 frames it is the longest."""
    return msgspec.structs.replace(row, p99_s=float(np.quantile(seconds, 0.99, method="higher")))
