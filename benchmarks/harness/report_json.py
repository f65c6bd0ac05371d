"""The results of a benchmark: one JSON file per case, and a table for people."""

import datetime
from collections.abc import Mapping
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from maskrt.benchmarks.harness.measure import Row, Spread
from maskrt.runtime.doctor import examine
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.equality import Equality
from maskrt.runtime.files import write_bytes

MAX_REPORT_BYTES = 1 << 20


class Environment(msgspec.Struct, frozen=True):
    """The machine of a measurement. cores: usable ones; threads: given to every contestant; memory_gb: 10^9 bytes."""

    processor: str
    cores: int
    threads: int
    memory_gb: float | None
    os: str
    python: str
    versions: dict[str, str]
    date: str


class EqualityCounts(msgspec.Struct, frozen=True):
    """Equality of maskrt.runtime.evaluation.equality, and the pixels whose label differs between ours and the peer."""

    masks: int
    identical_rles: int
    ties: int
    different: int
    label_pixels_different: int
    same_order: bool
    max_pred_iou_difference: float


class CaseReport(msgspec.Struct, frozen=True):
    """One case. ratios: "vs_PEER" is that of the largest size measured, "vs_PEER_SIZE" that of each size.

    equality: over all sizes; equality_by_size: each. notes: what a reader must know to understand the figures.
    """

    case: str
    environment: Environment
    rows: tuple[Row, ...]
    ratios: dict[str, Spread]
    equality: EqualityCounts
    equality_by_size: dict[str, EqualityCounts]
    notes: tuple[str, ...]


def environment(threads: int) -> Environment:
    """Describe this machine, today."""
    machine = examine(providers=())
    memory = machine.memory_total_mb
    return Environment(
        processor=machine.cpu,
        cores=machine.cpus_usable,
        threads=threads,
        memory_gb=None if memory is None else round(memory / 1e3, 1),
        os=machine.system,
        python=machine.python,
        versions={name.replace("-", "_"): version for name, version in machine.versions.items() if version},
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def equality_counts(equality: Equality, label_pixels_different: int) -> EqualityCounts:
    """Turn the comparison of one size into what a report holds."""
    return EqualityCounts(
        equality.masks,
        equality.identical_rles,
        equality.ties,
        equality.different,
        label_pixels_different,
        equality.same_order,
        equality.max_pred_iou_difference,
    )


def total(by_size: Mapping[str, EqualityCounts]) -> EqualityCounts:
    """Add the counts of all sizes. The flag holds if it holds for each, and the difference is the largest."""
    counts = list(by_size.values())
    return EqualityCounts(
        sum(c.masks for c in counts),
        sum(c.identical_rles for c in counts),
        sum(c.ties for c in counts),
        sum(c.different for c in counts),
        sum(c.label_pixels_different for c in counts),
        all(c.same_order for c in counts),
        max((c.max_pred_iou_difference for c in counts), default=0.0),
    )


def write_report(report: CaseReport, path: Path) -> None:
    """Write the JSON, whole or not at all.

    Raises:
        MaskrtError: the file cannot be written.
    """
    write_bytes(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def read_report(path: Path) -> CaseReport:
    """Read what write_report wrote.

    Raises:
        InputError: the file is no report.
    """
    if not path.is_file() or path.stat().st_size > MAX_REPORT_BYTES:
        raise InputError(f"{path} is missing or too large for a report: measure it again with maskrt bench")
    try:
        return msgspec.json.decode(path.read_bytes(), type=CaseReport)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not a report ({error}): measure it again with maskrt bench") from error


def print_report(report: CaseReport, console: Console | None = None) -> None:
    """Print the rows as a table, then ratios, equality and notes as lines."""
    console = console or Console()
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("contestant", no_wrap=True)
    # Some cases measure more; a column that no row of this case fills is left out.
    further = {
        "p99 s": [row.p99_s for row in report.rows],
        "frames/s": [row.frames_per_s for row in report.rows],
        "Dice": [row.dice for row in report.rows],
        "GFLOPs": [row.gflops for row in report.rows],
    }
    further = {column: values for column, values in further.items() if any(value is not None for value in values)}
    for column in ("median s", "p95 s", "runs", "peak RSS MB", *further):
        table.add_column(column, justify="right", no_wrap=True)
    for row, *more in zip(report.rows, *further.values(), strict=True):
        cells = f"{row.median_s:.3f}", f"{row.p95_s:.3f}", str(row.runs), f"{row.peak_rss_mb:.0f}"
        table.add_row(row.name, *cells, *("-" if value is None else f"{value:.3f}" for value in more))
    console.print(table)
    lines = [f"{row.name}: " + ", ".join(f"{k} {v:.0f} ms" for k, v in row.stages_ms.items()) for row in report.rows]
    lines = [line for row, line in zip(report.rows, lines, strict=True) if row.stages_ms]
    lines += [f"{name}: {spread_text(spread)}" for name, spread in report.ratios.items()]
    lines += [f"equality ({size}): {equality_text(counts)}" for size, counts in report.equality_by_size.items()]
    lines += [f"note: {note}" for note in report.notes]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def spread_text(spread: Spread) -> str:
    """Write the median and range of the ratios of all pairs."""
    return f"{spread.median:.2f} times ({spread.min:.2f} to {spread.max:.2f})"


def equality_text(counts: EqualityCounts) -> str:
    """Write the counts in words."""
    return (
        f"{counts.masks} masks: {counts.identical_rles} identical, {counts.ties} ties, {counts.different} different; "
        f"{counts.label_pixels_different} label pixels differ"
    )
