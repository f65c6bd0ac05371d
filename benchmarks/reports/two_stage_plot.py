"""Draw the two-stage document's figure 3 from committed JSON into docs.

Run it with `python -m maskrt.benchmarks.reports.two_stage_plot`.
"""

from pathlib import Path
from typing import Any

from maskrt.benchmarks.harness.report_json import read_report
from maskrt.benchmarks.harness.tables import RESULTS
from maskrt.benchmarks.reports.refine_plots import DOCS, write_figure


def figure_of(file: Path) -> Any:
    """Plot every contestant's Dice, and its GFLOPs and wall time as a share of the baseline's."""
    from matplotlib.figure import Figure

    rows = read_report(file).rows
    names = [row.name for row in rows]
    places = range(len(rows))
    figure = Figure((9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(places, [row.dice for row in rows], "o", color="tab:blue")
    left.axhline(rows[0].dice, color="grey", linestyle=":", label=rows[0].name)
    left.set_ylabel("Dice, mean over scenes")
    left.legend(fontsize=8)
    for offset, label, values in (
        (-0.2, "GFLOPs", [row.gflops or 0 for row in rows]),
        (0.2, "wall time", [row.median_s for row in rows]),
    ):
        right.bar([place + offset for place in places], [100 * value / values[0] for value in values], 0.4, label=label)
    right.set_ylabel(f"% of {rows[0].name}")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.set_xticks(places, names, rotation=45, ha="right", fontsize=8)
    return figure


def main() -> None:
    """Write the picture."""
    write_figure(figure_of(RESULTS / "two-stage.json"), DOCS / "two_stage.svg")


if __name__ == "__main__":
    main()
