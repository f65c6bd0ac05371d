"""Shows numbers of clicks and failure rates as a table, as Markdown and as JSON."""

from collections.abc import Sequence
from typing import Any, Self

import msgspec
from rich.table import Table

from maskrt.benchmarks.harness.report_json import Environment
from maskrt.cli.say import cells, say, say_table
from maskrt.runtime.evaluation.click_metrics import Limit, click_figures
from maskrt.runtime.evaluation.click_objects import Survey
from maskrt.runtime.evaluation.click_sequence import ClickSequence, Failed, ObjectRecord, ProtocolName
from maskrt.runtime.evaluation.clicks import CONFIGURATIONS

MARKS = {"off": "", False: "", True: "x"}  # marks of settings in a table; any other is shown as it is
LEGEND = (
    "CA: step after each click, undone (R) or kept (C); RM: step on the accepted mask, eroded (E) or untreated (U); "
    "CM: with the object's clicks (x); NoC: number of clicks; FR: failure rate in percent"
)


class SequenceFigures(msgspec.Struct, frozen=True):
    """Figures of a configuration at a limit; seconds_per_click: the session's, without pictures and simulated user."""

    configuration: str
    limit: str
    objects: int
    failures: int
    noc: float
    fr_percent: float
    seconds_per_click: float
    steps: int
    skipped_steps: int
    records: tuple[ObjectRecord, ...]

    @classmethod
    def of(cls, configuration: str, limit: Limit, sequence: ClickSequence) -> Self:
        """Make the figures of all objects of a sequence."""
        records = sequence.records
        clicks = [record.clicks for record in records]
        last_click_fails = sequence.settings.protocol == "wseseg"
        figures = click_figures(clicks, [record.iou for record in records], limit, last_click_fails)
        return cls(
            configuration,
            limit.name,
            figures.objects,
            figures.failures,
            figures.noc,
            figures.fr_percent,
            sum(record.seconds for record in records) / sum(clicks),
            sequence.steps,
            sequence.skipped_steps,
            records,
        )


class ClickReport(msgspec.Struct, frozen=True):
    """The report that --json writes.

    left_out: objects that are too small; failed: image -> why it was left out; bundle_sha256: of bundle.json; options:
    settings that replace the bundle's; failed_objects: what the user does with them; protocol: see
    maskrt.runtime.evaluation.clicks.
    """

    images: int
    objects: int
    left_out: int
    failed: dict[str, str]
    bundle_sha256: str
    options: dict[str, Any]
    failed_objects: Failed
    protocol: ProtocolName
    environment: Environment
    sequences: tuple[SequenceFigures, ...]

    def to_json(self) -> bytes:
        """Encode it on one line, since there is a record for every object."""
        return msgspec.json.encode(self) + b"\n"


def print_click_table(survey: Survey, sequences: Sequence[SequenceFigures], protocol: ProtocolName) -> None:
    """Print a row per configuration with NoC and FR per limit, and a legend, on stdout."""
    header, rows = _cells(sequences)
    table = Table(title=_title(survey, protocol), title_justify="left")
    for at, name in enumerate(header):
        table.add_column(name, justify="left" if at < 3 else "right")
    for row in rows:
        table.add_row(*cells(*row))
    say_table(table)
    say(LEGEND)
    for sequence in sequences:
        if sequence.skipped_steps:
            what = f"{sequence.configuration} at {sequence.limit}"
            say(f"{what}: {sequence.skipped_steps} steps were left out because their gradients were not finite")


def click_markdown(survey: Survey, sequences: Sequence[SequenceFigures], protocol: ProtocolName) -> str:
    """Return the same table as Markdown."""
    header, rows = _cells(sequences)
    lines = [header, ["---"] * 3 + ["---:"] * (len(header) - 3), *rows]
    return "\n".join(
        [f"{_title(survey, protocol)}. {LEGEND}.", "", *("| " + " | ".join(row) + " |" for row in lines), ""]
    )


def _title(survey: Survey, protocol: ProtocolName) -> str:
    title = f"{survey.objects} objects in {len(survey.planned)} images"
    return title if protocol == "paper" else f"{title}, {protocol}"


def _cells(sequences: Sequence[SequenceFigures]) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows of cells in the source document's layout: CA, RM, CM; NoC and FR per limit."""
    limits = list(dict.fromkeys(sequence.limit for sequence in sequences))
    header = ["CA", "RM", "CM", *(f"{name} {limit}" for limit in limits for name in ("NoC", "FR"))]
    rows: dict[str, list[str]] = {}
    for sequence in sequences:
        learnt = CONFIGURATIONS[sequence.configuration].values()
        row = rows.setdefault(sequence.configuration, [MARKS.get(value, value) for value in learnt])
        row += [f"{sequence.noc:.3f}", f"{sequence.fr_percent:.2f}"]
    return header, list(rows.values())
