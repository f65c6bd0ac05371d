"""Write the tables of README.md and docs from committed JSON: `python -m maskrt.benchmarks.harness.tables`.

The files of a table NAME are benchmarks/results/NAME.json and NAME-*.json. Their table is written between
`<!-- bench:NAME -->` and `<!-- /bench -->`, in README.md or in a page of docs. It is empty where there is no such file.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from maskrt.benchmarks.harness.markdown import machine_text, markdown_table, percent_text, score_text, seconds_text
from maskrt.benchmarks.harness.measure import Row
from maskrt.benchmarks.harness.registry import CASES
from maskrt.benchmarks.harness.report_json import Environment, equality_text, read_report, spread_text
from maskrt.benchmarks.harness.summary import summary_markdown
from maskrt.benchmarks.reports.policies import Policies
from maskrt.benchmarks.reports.refine_quality import RefineQuality
from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.evaluation.click_sequence import Failed
from maskrt.runtime.files import write_bytes

StructT = TypeVar("StructT", bound=msgspec.Struct)

ROOT = Path(__file__).resolve().parents[2]  # resolved: the package reaches this folder through a link
RESULTS = ROOT / "benchmarks" / "results"
OPENING = "<!-- bench:"
BLOCK = re.compile(r"(<!-- bench:(?P<name>[a-z0-9_-]+) -->\n)(?P<body>.*?)(<!-- /bench -->)", re.DOTALL)


class QualityFile(msgspec.Struct, frozen=True):
    """The part of maskrt.benchmarks.reports.quality.Quality that the table shows; an undefined score is null."""

    scenes: int
    first_seed: int
    methods: dict[str, dict[str, float | None]]
    instance_iou: float | None
    mask_iou: float | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables into README.md and docs, or with --check say which of these pages are stale.

    Exit code: 1 when a checked page is stale, 2 when the tables cannot be made.
    """
    parser = argparse.ArgumentParser(prog="python -m maskrt.benchmarks.harness.tables", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when a page is stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder that holds README.md and docs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the JSON files")
    options = parser.parse_args(arguments)
    try:
        stale = {
            page: text.encode()
            for page, text in generated(options.root, options.results).items()
            if text != page.read_text(encoding="utf-8")
        }
        if options.check:
            for page in stale:
                print(f"{page} is stale: run python -m maskrt.benchmarks.harness.tables", file=sys.stderr)
            return 1 if stale else 0
        for page, data in stale.items():
            write_bytes(page, data)
    except (MaskrtError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def generated(root: Path, results: Path) -> dict[Path, str]:
    """Return README.md and every page of docs with their tables generated again.

    Raises:
        InputError: as `with_tables`, or no page has the markers of a table.
    """
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    placed = {match["name"] for text in texts.values() for match in BLOCK.finditer(text)}
    found = {page: with_tables(text, results) for page, text in texts.items()}
    if missing := [name for name in TABLES if name not in placed]:
        raise InputError(
            f"no page has a place for {', '.join(missing)}: write {OPENING}{missing[0]} --> and <!-- /bench -->, "
            "each on a line of its own, into README.md or a page of docs"
        )
    return found


def with_tables(text: str, results: Path) -> str:
    """Return the text with every marked table generated again from the files in `results`.

    Raises:
        InputError: a block has no end, there is no table of its name, or a file does not hold what its name says.
    """
    if text.count(OPENING) != len(BLOCK.findall(text)):
        raise InputError(f"a {OPENING}NAME --> is not followed by a line break and, later, <!-- /bench -->")

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise InputError(f"no table is called {name!r}; known: {', '.join(TABLES)}")
        return f"{match[1]}{TABLES[name](results)}{match[4]}"

    return BLOCK.sub(block, text)


def case_markdown(file: Path) -> str:
    """Return a case's rows, and below them ratios, equality, notes and the machine."""
    report = read_report(file)
    further = CASE_COLUMNS.get(report.case, {})
    header = ("", "median", "p95", "runs", "peak memory", *further)
    rows: list[tuple[str, ...]] = [
        (
            row.name,
            seconds_text(row.median_s),
            seconds_text(row.p95_s),
            str(row.runs),
            f"{row.peak_rss_mb:.0f} MB",
            *(cell(row) for cell in further.values()),
        )
        for row in report.rows
    ]
    # The ratio without a size repeats that of the largest size.
    sizes = RATIO_ENDINGS.get(report.case, tuple(report.equality_by_size))
    sized = {name: spread for name, spread in report.ratios.items() if name.endswith(sizes)}
    lines = [f"Ratio {name}: {spread_text(spread)}" for name, spread in sized.items()]
    lines += [f"Equality ({size}): {equality_text(counts)}" for size, counts in report.equality_by_size.items()]
    lines += [note[:1].upper() + note[1:] for note in report.notes]
    return markdown_table(header, rows, [*lines, machine_text(report.environment)])


def quality_markdown(file: Path) -> str:
    """Return the scores of every method."""
    quality = _read(file, QualityFile, "the quality of the demo models")
    names = list(next(iter(quality.methods.values()), {}))
    rows = [(method, *(score_text(scores.get(name)) for name in names)) for method, scores in quality.methods.items()]
    last = quality.first_seed + quality.scenes - 1
    lines = [
        f"{quality.scenes} scenes that no model was trained on: seeds {quality.first_seed} to {last}",
        f"Best mask of each drawn object: mean IoU {score_text(quality.instance_iou)}; "
        f"best object of each mask: {score_text(quality.mask_iou)}",
    ]
    return markdown_table(("", *names), rows, lines)


def policies_markdown(file: Path) -> str:
    """Return a row for every prompt policy: its costs and its scores."""
    found = _read(file, Policies, "the prompt policies")
    rows = [
        (
            f"`prompts={row.name}`",
            score_text(row.soss.iou),
            score_text(row.iou_with_grid),
            f"{row.masks:.1f}",
            score_text(row.thin_cable_recall),
            f"{row.grid_time_ratio.median:.2f} ({row.grid_time_ratio.min:.2f} to {row.grid_time_ratio.max:.2f})",
        )
        for row in found.rows
    ]
    last = found.first_seed + found.scenes - 1
    lines = [
        f"{found.scenes} scenes that no model was trained on: seeds {found.first_seed} to {last}, 1920x1080",
        f"Thin cables: under 6 px wide, {found.thin_cable_pixels} pixels of them",
        "Faster than the grid: the grid's time / this policy's, scene by scene",
    ]
    header = ("", "SOSS IoU", "IoU with grid", "masks a scene", "recall on thin cables", "faster than the grid")
    return markdown_table(header, rows, [*lines, machine_text(found.environment)])


def refine_quality_markdown(file: Path) -> str:
    """Return a row for every selection of a refiner: its quality and its gain in time."""
    found = _read(file, RefineQuality, "a refiner's quality")
    rows = [
        (
            row.name,
            percent_text(row.iou),
            percent_text(row.mba),
            percent_text(row.decoded_fraction) if row.full_time_ratio else "-",
            f"{row.full_time_ratio.median:.2f} ({row.full_time_ratio.min:.2f} to {row.full_time_ratio.max:.2f})"
            if row.full_time_ratio
            else "-",
        )
        for row in found.rows
    ]
    sizes = ", ".join(f"{width}x{height}" for width, height in found.sizes_wh)
    last = found.first_seed + found.scenes - 1
    lines = [
        f"{found.scenes} scenes that no model was trained on: seeds {found.first_seed} to {last}, {sizes} in turns",
        "IoU pooled, mBA the mean over scenes, in percent; rough: 128 cells on the longer side, scaled up",
        "Faster than full: the time of full / this selection's, scene by scene",
    ]
    header = ("", "IoU", "mBA", "decoded", "faster than full")
    return markdown_table(header, rows, [*lines, machine_text(found.environment)])


class ClickRow(msgspec.Struct, frozen=True):
    """One configuration at one limit, as far as the table shows it."""

    configuration: str
    limit: str
    failures: int
    noc: float
    fr_percent: float


class ClickFile(msgspec.Struct, frozen=True):
    """The part of the file of `maskrt eval-interactive --json` that the table shows."""

    images: int
    objects: int
    options: dict[str, Any]
    failed_objects: Failed
    environment: Environment
    sequences: tuple[ClickRow, ...]


def clicks_markdown(file: Path) -> str:
    """Return a row for every way of learning: clicks an object takes, and how many objects are never good enough."""
    found = _read(file, ClickFile, "the clicks of a simulated user")
    limits = list(dict.fromkeys(row.limit for row in found.sequences))
    rows: dict[str, list[str]] = {}
    for row in found.sequences:
        without = next(each for each in found.sequences if each.limit == row.limit)
        change = (row.failures - without.failures) / without.failures if without.failures else 0.0
        rows.setdefault(row.configuration, [row.configuration]).extend(
            [f"{row.noc:.2f}", f"{row.fr_percent:.1f}", f"{change:+.1%}"]
        )
    columns = ("NoC {}", "FR {}", f"failures, against {found.sequences[0].configuration}")
    header = ["", *(column.format(limit) for limit in limits for column in columns)]
    options = ", ".join(f"{name}={value}" for name, value in found.options.items()) or "nothing"
    ended = {"accept": "accepted as they are", "give-up": "given up", "skip": "skipped"}[found.failed_objects]
    lines = [f"{found.objects} objects in {found.images} pictures; set: {options}; failed ones are {ended}"]
    return markdown_table(header, list(rows.values()), [*lines, machine_text(found.environment)])


# Case -> its columns beside those that all cases have; and the endings of the ratios that its table shows.
CASE_COLUMNS: dict[str, dict[str, Callable[[Row], str]]] = {
    "refine": {
        "decoded": lambda row: percent_text(row.decoded_fraction),
        "IoU": lambda row: percent_text(row.iou),
        "mBA": lambda row: percent_text(row.mba),
    },
    "two-stage": {"Dice": lambda row: score_text(row.dice), "GFLOPs": lambda row: f"{row.gflops:.2f}"},
    "latency": {"p99": lambda row: seconds_text(row.p99_s or 0)},
    "throughput": {"frames/s": lambda row: f"{row.frames_per_s:.2f}"},
}
RATIO_ENDINGS = {
    "adaptation": ("demo", "vit_b"),
    "refine": ("2k", "4k", "6k"),
    "two-stage": ("",),
    "latency": ("",),
    "throughput": ("",),
}
FILE_TABLES: dict[str, Callable[[Path], str]] = {
    "quality": quality_markdown,
    "policies": policies_markdown,
    "refine_quality": refine_quality_markdown,
    "clicks": clicks_markdown,
    **dict.fromkeys(CASES, case_markdown),
}


def _files_markdown(name: str, table: Callable[[Path], str], results: Path) -> str:
    files = [results / f"{name}.json", *sorted(results.glob(f"{name}-*.json"))]
    return "".join(table(file) for file in files if file.is_file())


TABLES: dict[str, Callable[[Path], str]] = {
    "summary": summary_markdown,
    **{name: partial(_files_markdown, name, table) for name, table in FILE_TABLES.items()},
}


def _read(file: Path, kind: type[StructT], what: str) -> StructT:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file} does not hold {what}: {error}; measure it again") from error


if __name__ == "__main__":
    sys.exit(main())
