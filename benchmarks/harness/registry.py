"""The registry of benchmark cases, and the options that all of them share."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskrt.benchmarks.harness.report_json import CaseReport
from maskrt.runtime.errors import InputError

# Case -> module with run(options, report) -> CaseReport. It is a name, so that only those who run a case import it.
CASES = {
    "soss": "maskrt.benchmarks.cases.soss_case",
    "encoder": "maskrt.benchmarks.cases.encoder_case",
    "decoder": "maskrt.benchmarks.cases.decoder_case",
    "masks": "maskrt.benchmarks.cases.masks_case",
    "voting": "maskrt.benchmarks.cases.voting_case",
    "precision": "maskrt.benchmarks.cases.precision_case",
    "refine": "maskrt.benchmarks.cases.refine_case",
    "two-stage": "maskrt.benchmarks.cases.two_stage_case",
    "adaptation": "maskrt.benchmarks.cases.adaptation_case",
    "latency": "maskrt.benchmarks.cases.latency_case",
    "throughput": "maskrt.benchmarks.cases.throughput_case",
}


@dataclass(frozen=True)
class BenchOptions:
    """How a case measures.

    threads: of every contestant; None is every usable core. work: folder for models that a case makes.

    refine reads pictures, and sides: the contestants that run beside ours, all of them where it is empty. two-stage,
    latency and throughput read bundle, the demo's where it is None, and frames, the number of scenes. latency and
    throughput read providers; throughput takes one. throughput reads processes, streams in each process, and batch, the
    frames that each stream takes at a time; where all three are empty, it chooses them.
    """

    size: str = "all"
    pairs: int = 5
    warmup: int = 1
    points_per_side: int = 40
    threads: int | None = None
    work: Path = Path("out/bench")
    pictures: tuple[str, ...] = ("2k",)
    sides: tuple[str, ...] = ()
    bundle: Path | None = None
    frames: int = 4
    providers: tuple[str, ...] = ("cpu",)
    processes: tuple[int, ...] = ()
    streams: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()


def run_case(name: str, options: BenchOptions, report: Callable[[str], None]) -> CaseReport:
    """Measure one case.

    Raises:
        InputError: there is no such case, or its models are missing.
        WorkerError: a contestant failed.
    """
    if name not in CASES:
        raise InputError(f"unknown case {name!r}; known: {', '.join(CASES)}")
    result: CaseReport = importlib.import_module(CASES[name]).run(options, report)
    return result
