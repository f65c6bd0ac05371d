"""README's summary: five figures of the benchmarks, each against its peer, taken from committed reports."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskrt.benchmarks.harness.markdown import markdown_table, score_text, seconds_text
from maskrt.benchmarks.harness.measure import Row
from maskrt.benchmarks.harness.report_json import CaseReport, EqualityCounts, read_report
from maskrt.runtime.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """One row of the summary.

    report: name of the file in benchmarks/results, without ".json". ours, theirs, ratio: names in that report. size: in
    the report's equality_by_size; empty where the answers are compared by a score.
    """

    what: str
    peer: str
    report: str
    ours: str
    theirs: str
    ratio: str
    size: str = ""


COMPARISONS = (
    Comparison(
        what="SOSS with SAM ViT-B",
        peer="PyTorch",
        report="soss-vit_b",
        ours="maskrt (vit_b)",
        theirs="pytorch_upstream (vit_b)",
        ratio="vs_pytorch_upstream_vit_b",
        size="vit_b",
    ),
    Comparison(
        what="SOSS with the demo models",
        peer="PyTorch",
        report="soss-demo",
        ours="maskrt (demo)",
        theirs="pytorch_upstream (demo)",
        ratio="vs_pytorch_upstream_demo",
        size="demo",
    ),
    Comparison(
        what="mask decoder of SAM ViT-B",
        peer="PyTorch",
        report="decoder-vit_b",
        ours="maskrt (vit_b)",
        theirs="pytorch_eager (vit_b)",
        ratio="vs_pytorch_eager_vit_b",
        size="vit_b",
    ),
    Comparison(
        what="refinement of a 2K picture, CRM with ResNet-50",
        peer="the original in PyTorch",
        report="refine-resnet50-warm",
        ours="full (resnet50_2k)",
        theirs="pytorch_original (resnet50_2k)",
        ratio="full_vs_pytorch_original_resnet50_2k",
        size="resnet50_2k",
    ),
    Comparison(
        what="two stages, windows on 40% of the picture",
        peer="one U-Net on the whole picture",
        report="two-stage",
        ours="sliding, 40% of 8 x 8",
        theirs="baseline",
        ratio="sliding, 40% of 8 x 8_vs_baseline",
    ),
)


def summary_markdown(results: Path) -> str:
    """Return the table of every comparison whose report is in `results`; nothing where none is.

    Raises:
        InputError: a report is broken, or does not have what a row shows.
    """
    rows, machines = [], []
    for each in COMPARISONS:
        file = results / f"{each.report}.json"
        if file.is_file():
            report = read_report(file)
            rows.append(_cells(each, report))
            where = report.environment
            memory = f", {where.memory_gb:.0f} GB" if where.memory_gb else ""
            machines.append(f"{where.processor}, {where.cores} cores{memory}")
    if not rows:
        return ""
    lines = [
        "Times are medians; a ratio is the peer's time / maskrt's, from pairs measured in turns; "
        "memory is the peak of the process",
        "Sources are in `benchmarks/results`",
        *dict.fromkeys(machines),
    ]
    return markdown_table(("", "peer", "maskrt against the peer", "answer", "source"), rows, lines, align="---")


def _cells(each: Comparison, report: CaseReport) -> tuple[str, ...]:
    rows = {row.name: row for row in report.rows}
    try:
        ours, theirs, ratio = rows[each.ours], rows[each.theirs], report.ratios[each.ratio]
        equality = report.equality_by_size[each.size] if each.size else None
    except KeyError as error:
        raise InputError(f"{each.report}.json has no {error}, which the summary shows: measure it again") from error
    figures = [f"{_pair(ours, theirs, _seconds)}, {ratio.median:.2f} times", f"{_pair(ours, theirs, _memory)}"]
    if ours.gflops is not None and theirs.gflops is not None:
        figures.append(_pair(ours, theirs, _gflops))
    answer = _equality(equality) if equality else _pair(ours, theirs, _dice)
    return each.what, each.peer, "; ".join(figures), answer, f"`{each.report}.json`"


def _pair(ours: Row, theirs: Row, text: Callable[[Row], str]) -> str:
    return f"{text(ours)} against {text(theirs)}"


def _seconds(row: Row) -> str:
    return seconds_text(row.median_s)


def _memory(row: Row) -> str:
    return f"{row.peak_rss_mb:.0f} MB"


def _gflops(row: Row) -> str:
    return f"{row.gflops:.2f} GFLOPs"


def _dice(row: Row) -> str:
    return f"Dice {score_text(row.dice)}"


def _equality(counts: EqualityCounts) -> str:
    masks = f"{counts.masks} mask{'s' * (counts.masks != 1)}"
    return f"{masks}: {counts.identical_rles} identical, {counts.ties} ties, {counts.different} different"
