"""Markdown tables, and how figures are written in their cells."""

from collections.abc import Sequence

from maskrt.benchmarks.harness.report_json import Environment

PACKAGES = ("numpy", "numba", "onnxruntime", "torch", "segment_anything")


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str], align: str = "---:"
) -> str:
    """Return a table and a list of remarks below it. `align` is Markdown's mark for the columns after the first."""
    table = [header, ["---", *[align] * (len(header) - 1)], *rows]
    text = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join(["", *text, "", *(f"- {line}" for line in lines), "", ""])


def machine_text(where: Environment) -> str:
    """Return the machine, the versions and the date of a measurement."""
    versions = ", ".join(f"{name} {where.versions[name]}" for name in PACKAGES if name in where.versions)
    memory = f", {where.memory_gb:.0f} GB" if where.memory_gb else ""
    threads = f"{where.cores} core{'s' * (where.cores != 1)}, {where.threads} thread{'s' * (where.threads != 1)}"
    return f"{where.processor}, {threads}{memory}, {where.os}, Python {where.python}, {versions}; {where.date}"


def seconds_text(value: float) -> str:
    """Return a time with its unit."""
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def percent_text(value: float | None) -> str:
    """Return a share in percent, without the sign; "-" where it was not measured."""
    return "-" if value is None else f"{100 * value:.2f}"


def score_text(value: float | None) -> str:
    """Return a score from 0 to 1; "-" where it was not measured or is undefined."""
    return "-" if value is None else f"{value:.3f}"
