"""Measure every size of a case, and put the results into one report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import msgspec

from maskrt.benchmarks.harness.measure import Factory, Measured, run_pairs
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, EqualityCounts, environment, total
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.types import Report

PreparedT = TypeVar("PreparedT")


def measure_sizes(
    prepared: Mapping[str, PreparedT],
    options: BenchOptions,
    report: Report,
    contestants: Callable[[PreparedT, Path], Mapping[str, Factory]],
) -> dict[str, Measured]:
    """Measure one size after the other.

    Args:
        prepared: what the contestants are made from, such as the models, by size, from small to large.
        contestants: makes the contestants of one size, ours first. Their files go into the folder, which lasts as long
            as they run.

    Raises:
        WorkerError: a contestant failed or died.
    """
    measured = {}
    for size, models in prepared.items():

        def sized(line: str, size: str = size) -> None:
            report(f"{size}: {line}")

        with TemporaryDirectory(prefix="maskrt-bench-") as folder:
            sides = contestants(models, Path(folder))
            measured[size] = run_pairs(sides, options.pairs, options.warmup, sized)
    return measured


def assemble(
    case: str,
    options: BenchOptions,
    measured: Mapping[str, Measured],
    equality: Mapping[str, EqualityCounts],
    notes: Sequence[str],
) -> CaseReport:
    """Build the report of a case.

    Args:
        case: its name.
        options: those it was measured with.
        measured, equality: by size, from small to large; the first contestant of each is ours.
        notes: what a reader must know besides how the ratios were made.
    """
    rows = [
        msgspec.structs.replace(row, name=f"{row.name} ({size})")
        for size, result in measured.items()
        for row in result.rows
    ]
    largest = list(measured)[-1]
    ours = measured[largest].rows[0].name
    of_largest = {f"vs_{peer}": spread for peer, spread in measured[largest].ratios.items()}
    by_size = {
        f"vs_{peer}_{size}": spread for size, result in measured.items() for peer, spread in result.ratios.items()
    }
    general = [
        f"ratio: the other's time / {ours}'s, of pairs measured in turns; without a size it is that of {largest}",
        f"{options.pairs} pairs after {options.warmup} warm-ups; one worker process each, only one working at a time",
        "peak_rss_mb: of the worker, with its models; from loading to the last run",
    ]
    return CaseReport(
        case=case,
        environment=environment(options.threads or usable_cpus()),
        rows=tuple(rows),
        ratios={**of_largest, **by_size},
        equality=total(equality),
        equality_by_size=dict(equality),
        notes=(*general, *notes),
    )
