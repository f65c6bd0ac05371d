"""Draw the refiner's figures from committed JSON into docs: `python -m maskrt.benchmarks.reports.refine_plots`.

refine_quality.svg: quality against time of every selection. refine_memory.svg: memory against picture size.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec

from maskrt.benchmarks.cases.refine_case import PICTURES
from maskrt.benchmarks.harness.report_json import read_report
from maskrt.benchmarks.harness.tables import RESULTS, ROOT
from maskrt.benchmarks.reports.refine_quality import RefineQuality
from maskrt.runtime.files import write_bytes

DOCS = ROOT / "docs"


def quality_figure(found: RefineQuality) -> Any:
    """Plot mBA and IoU against the gain in time over full, a point per selection."""
    from matplotlib.figure import Figure

    figure = Figure((9, 3.6), layout="constrained")
    rough = found.rows[0]
    for axes, name in zip(figure.subplots(1, 2), ("mba", "iou"), strict=True):
        axes.axhline(100 * getattr(rough, name), color="grey", linestyle=":", label="rough mask")
        for row in found.rows:
            if row.full_time_ratio is not None:
                place = row.full_time_ratio.median, 100 * getattr(row, name)
                axes.plot(*place, "o", color="tab:blue")
                axes.annotate(
                    row.name, place, xytext=(2, -4), textcoords="offset points", fontsize=8, rotation=-50, va="top"
                )
        axes.set_xlabel("times faster than full (median over scenes)")
        axes.set_ylabel({"mba": "mBA, %", "iou": "IoU, %"}[name])
        axes.margins(0.15, 0.3)  # names stand below their points
        axes.legend(fontsize=8, loc="center left")
    return figure


def memory_figure(file: Path) -> Any:
    """Plot the process's peak memory against the picture's megapixels, a line per contestant."""
    from matplotlib.figure import Figure

    found: dict[str, list[tuple[float, float]]] = {}
    for row in read_report(file).rows:
        contestant, _, place = row.name.rpartition(" (resnet50_")
        picture = place.rstrip(")")
        if contestant in ("pytorch_original", "full", "adaptive") and picture in PICTURES:
            width, height = PICTURES[picture]
            found.setdefault(contestant, []).append((width * height / 1e6, row.peak_rss_mb / 1e3))
    figure = Figure((5, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, points in found.items():
        axes.plot(*zip(*sorted(points), strict=True), "o-", label=name)
    axes.set_xlabel("megapixels")
    axes.set_ylabel("peak memory, GB")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return figure


def write_figure(figure: Any, path: Path) -> None:
    """Write an SVG whose bytes depend on the figure alone."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "maskrt"
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    write_bytes(path, buffer.getvalue())


def main() -> None:
    """Write both pictures."""
    quality = msgspec.json.decode((RESULTS / "refine_quality.json").read_bytes(), type=RefineQuality)
    write_figure(quality_figure(quality), DOCS / "refine_quality.svg")
    write_figure(memory_figure(RESULTS / "refine-resnet50.json"), DOCS / "refine_memory.svg")


if __name__ == "__main__":
    main()
