"""README's tables of figures, generated from committed JSON: `python -m maskrt.benchmarks.harness.tables` rewrites them.

Between `<!-- bench:NAME -->` and `<!-- /bench -->` stands what benchmarks/results/NAME.json and NAME-*.json say, and
nothing where there is no such file.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from maskrt.benchmarks.harness.measure import Row
from maskrt.benchmarks.harness.registry import CASES
from maskrt.benchmarks.harness.report_json import Environment, equality_text, read_report, spread_text
from maskrt.benchmarks.reports.policies import Policies
from maskrt.benchmarks.reports.refine_quality import RefineQuality
from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.evaluation.click_sequence import Failed
from maskrt.runtime.files import write_bytes

StructT = TypeVar("StructT", bound=msgspec.Struct)

ROOT = Path(__file__).resolve().parents[2]  # resolved: the package reaches this folder through a link
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results"
OPENING = "<!-- bench:"
BLOCK = re.compile(r"(<!-- bench:(?P<name>[a-z0-9_-]+) -->\n)(?P<body>.*?)(<!-- /bench -->)", re.DOTALL)


class QualityFile(msgspec.Struct, frozen=True):
    """What the table shows of maskrt.benchmarks.reports.quality.Quality; an undefined score is null in JSON."""

    scenes: int
    first_seed: int
    methods: dict[str, dict[str, float | None]]
    instance_iou: float | None
    mask_iou: float | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite README in place, or with --check say whether it is up to date. Exit code: 1 stale, 2 unusable."""
    parser = argparse.ArgumentParser(prog="python -m maskrt.benchmarks.harness.tables", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when README is stale")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        text = options.readme.read_text(encoding="utf-8")
        wanted = with_tables(text, options.results)
        if text != wanted and options.check:
            print(f"{options.readme} is stale: run python -m maskrt.benchmarks.harness.tables", file=sys.stderr)
            return 1
        if text != wanted:
            write_bytes(options.readme, wanted.encode())
    except (MaskrtError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def with_tables(text: str, results: Path) -> str:
    """The text with every marked block generated anew from the files in `results`.

    Raises:
        InputError: a block without an end or of an unknown name, or a file that is not what its name says.
    """
    if text.count(OPENING) != len(BLOCK.findall(text)):
        raise InputError(f"a {OPENING}NAME --> is not followed by a line break and, later, <!-- /bench -->")

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise InputError(f"no table is called {name!r}; known: {', '.join(TABLES)}")
        files = [results / f"{name}.json", *sorted(results.glob(f"{name}-*.json"))]
        body = "".join(TABLES[name](file) for file in files if file.is_file())
        return f"{match[1]}{body}{match[4]}"

    return BLOCK.sub(block, text)


def case_markdown(file: Path) -> str:
    """A case's rows, and below them ratios, equality, notes and the machine."""
    report = read_report(file)
    further = CASE_COLUMNS.get(report.case, {})
    header = ("", "median", "p95", "runs", "peak memory", *further)
    rows: list[tuple[str, ...]] = [
        (
            row.name,
            _seconds(row.median_s),
            _seconds(row.p95_s),
            str(row.runs),
            f"{row.peak_rss_mb:.0f} MB",
            *(cell(row) for cell in further.values()),
        )
        for row in report.rows
    ]
    # The ratio without a size is that of the largest one, so it stands among the others already.
    sizes = RATIO_ENDINGS.get(report.case, tuple(report.equality_by_size))
    sized = {name: spread for name, spread in report.ratios.items() if name.endswith(sizes)}
    lines = [f"Ratio {name}: {spread_text(spread)}" for name, spread in sized.items()]
    lines += [f"Equality ({size}): {equality_text(counts)}" for size, counts in report.equality_by_size.items()]
    lines += [note[:1].upper() + note[1:] for note in report.notes]
    return _markdown(header, rows, [*lines, _machine(report.environment)])


def quality_markdown(file: Path) -> str:
    """The scores of every method."""
    quality = _read(file, QualityFile, "the quality of the demo models")
    names = list(next(iter(quality.methods.values()), {}))
    rows = [(method, *(_score(scores.get(name)) for name in names)) for method, scores in quality.methods.items()]
    last = quality.first_seed + quality.scenes - 1
    lines = [
        f"{quality.scenes} scenes that no model was trained on: seeds {quality.first_seed} to {last}",
        f"Best mask of each drawn object: mean IoU {_score(quality.instance_iou)}; "
        f"best object of each mask: {_score(quality.mask_iou)}",
    ]
    return _markdown(("", *names), rows, lines)


def policies_markdown(file: Path) -> str:
    """What every prompt policy costs and changes."""
    found = _read(file, Policies, "the prompt policies")
    rows = [
        (
            f"`prompts={row.name}`",
            _score(row.soss.iou),
            _score(row.iou_with_grid),
            f"{row.masks:.1f}",
            _score(row.thin_cable_recall),
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
    return _markdown(header, rows, [*lines, _machine(found.environment)])


def refine_quality_markdown(file: Path) -> str:
    """What every selection of a refiner costs in quality."""
    found = _read(file, RefineQuality, "a refiner's quality")
    rows = [
        (
            row.name,
            _percent(row.iou),
            _percent(row.mba),
            _percent(row.decoded_fraction) if row.full_time_ratio else "-",
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
    return _markdown(header, rows, [*lines, _machine(found.environment)])


class ClickRow(msgspec.Struct, frozen=True):
    """What the table shows of a configuration at a limit."""

    configuration: str
    limit: str
    failures: int
    noc: float
    fr_percent: float


class ClickFile(msgspec.Struct, frozen=True):
    """What the table shows of what `maskrt eval-interactive --json` writes."""

    images: int
    objects: int
    options: dict[str, Any]
    failed_objects: Failed
    environment: Environment
    sequences: tuple[ClickRow, ...]


def clicks_markdown(file: Path) -> str:
    """How many clicks objects take with every way of learning, and how many are never good enough."""
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
    ended = {"accept": "accepted as they are", "give-up": "given up"}[found.failed_objects]
    lines = [f"{found.objects} objects in {found.images} pictures; set: {options}; failed ones are {ended}"]
    return _markdown(header, list(rows.values()), [*lines, _machine(found.environment)])


# Case -> columns beside those that all have; and how the ratios end that its table shows.
CASE_COLUMNS: dict[str, dict[str, Callable[[Row], str]]] = {
    "refine": {
        "decoded": lambda row: _percent(row.decoded_fraction),
        "IoU": lambda row: _percent(row.iou),
        "mBA": lambda row: _percent(row.mba),
    },
    "two-stage": {"Dice": lambda row: _score(row.dice), "GFLOPs": lambda row: f"{row.gflops:.2f}"},
    "latency": {"p99": lambda row: _seconds(row.p99_s or 0)},
    "throughput": {"frames/s": lambda row: f"{row.frames_per_s:.2f}"},
}
RATIO_ENDINGS = {
    "adaptation": ("demo", "vit_b"),
    "refine": ("2k", "4k", "6k"),
    "two-stage": ("",),
    "latency": ("",),
    "throughput": ("",),
}
TABLES: dict[str, Callable[[Path], str]] = {
    "quality": quality_markdown,
    "policies": policies_markdown,
    "refine_quality": refine_quality_markdown,
    "clicks": clicks_markdown,
    **dict.fromkeys(CASES, case_markdown),
}


def _read(file: Path, kind: type[StructT], what: str) -> StructT:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file} does not hold {what}: {error}; measure it again") from error


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str]) -> str:
    table = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    text = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join(["", *text, "", *(f"- {line}" for line in lines), "", ""])


def _machine(where: Environment) -> str:
    names = ("numpy", "numba", "onnxruntime", "torch", "segment_anything")
    versions = ", ".join(f"{name} {where.versions[name]}" for name in names if name in where.versions)
    memory = f", {where.memory_gb:.0f} GB" if where.memory_gb else ""
    threads = f"{where.cores} core{'s' * (where.cores != 1)}, {where.threads} thread{'s' * (where.threads != 1)}"
    return f"{where.processor}, {threads}{memory}, {where.os}, Python {where.python}, {versions}; {where.date}"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
