"""README's benchmark tables, generated from committed JSON: `python -m maskrt.benchmarks.tables` rewrites them.

Between `<!-- bench:CASE -->` and `<!-- /bench -->` stands what benchmarks/results/*.json say about CASE, nothing else.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from maskrt.benchmarks.report_json import CaseReport, equality_text, read_report, spread_text
from maskrt.runtime.atomic import write_bytes
from maskrt.runtime.errors import InputError, MaskrtError

ROOT = Path(__file__).resolve().parents[1]  # resolved: the package reaches this folder through a link
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- bench:(?P<case>[a-z0-9_]+) -->\n)(?P<body>.*?)(<!-- /bench -->)", re.DOTALL)
OPENING = "<!-- bench:"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite README in place, or with --check say whether it is up to date. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m maskrt.benchmarks.tables", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when README is stale")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        text = options.readme.read_text(encoding="utf-8")
        wanted = with_tables(text, read_results(options.results))
        if text == wanted:
            return 0
        if options.check:
            print(f"{options.readme} is stale: run python -m maskrt.benchmarks.tables", file=sys.stderr)
            return 1
        write_bytes(options.readme, wanted.encode())
    except (MaskrtError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def read_results(folder: Path) -> dict[str, list[CaseReport]]:
    """The reports in a folder by case, in the order of their file names."""
    by_case: dict[str, list[CaseReport]] = {}
    for file in sorted(folder.glob("*.json")):
        report = read_report(file)
        by_case.setdefault(report.case, []).append(report)
    return by_case


def with_tables(text: str, results: dict[str, list[CaseReport]]) -> str:
    """The text with every marked block generated anew.

    Raises:
        InputError: a block's case has no results, or a block is not closed.
    """
    if text.count(OPENING) != len(BLOCK.findall(text)):
        raise InputError("a <!-- bench:CASE --> is not followed by a line break and, later, <!-- /bench -->")

    def block(match: re.Match[str]) -> str:
        case = match["case"]
        if case not in results:
            raise InputError(f"no results of {case}: run maskrt bench {case} --json benchmarks/results/{case}.json")
        return f"{match[1]}{''.join(markdown(report) for report in results[case])}{match[4]}"

    return BLOCK.sub(block, text)


def markdown(report: CaseReport) -> str:
    """A table of rows, and below it ratios, equality, machine and notes."""
    lines = ["", "| | median | p95 | runs | peak memory |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {row.name} | {_seconds(row.median_s)} | {_seconds(row.p95_s)} | {row.runs} | {row.peak_rss_mb:.0f} MB |"
        for row in report.rows
    ]
    several = len(report.equality_by_size) > 1
    # The ratio without a size is that of the largest one, so it stands among the others already.
    sized = {name: spread for name, spread in report.ratios.items() if name.endswith(tuple(report.equality_by_size))}
    lines += ["", *(f"- Ratio {name}: {spread_text(spread)}" for name, spread in sized.items())]
    lines += [
        f"- Equality{f' ({size})' if several else ''}: {equality_text(counts)}"
        for size, counts in report.equality_by_size.items()
    ]
    lines += [f"- {note[0].upper()}{note[1:]}" for note in report.notes]
    return "\n".join([*lines, f"- {_machine(report)}", "", ""])


def _machine(report: CaseReport) -> str:
    where = report.environment
    names = ("numpy", "numba", "onnxruntime", "torch", "segment_anything")
    versions = ", ".join(f"{name} {where.versions[name]}" for name in names if name in where.versions)
    memory = f", {where.memory_gb:.0f} GB" if where.memory_gb else ""
    threads = f"{where.cores} core{'s' * (where.cores != 1)}, {where.threads} thread{'s' * (where.threads != 1)}"
    return f"{where.processor}, {threads}{memory}, {where.os}, Python {where.python}, {versions}; {where.date}"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
