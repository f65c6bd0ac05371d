"""`maskrt demo`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.say import say
from maskrt.cli.shared import Threads


def command(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for masks, overlays, report.html and summary.json.")
    ] = Path("out/demo"),
    scenes: Annotated[int, typer.Option(min=1, help="How many held-out scenes to draw and segment.")] = 10,
    bundle: Annotated[Path | None, typer.Option(help="Bundle to show in place of the demo's own.")] = None,
    threads: Threads = None,
) -> None:
    """Show SOSS on drawn scenes and a photograph.

    The scenes are drawn bedsides with known truth; of the photograph it shows SAM's segments. Writes OUT/report.html,
    which shows it all; OUT/mask, OUT/overlay and OUT/contact_sheet.png with the scenes; OUT/photograph.png; and
    OUT/summary.json with the scores of the segmenter alone, hard voting and SOSS, which are printed too. Needs
    maskrt[cpu,demo]. Exit codes: 0 done, 1 failed, 2 unusable input or options, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt demo --out out/demo --scenes 2
    """
    from maskrt.benchmarks.reports.demo import demo_bundle, print_line, run_demo
    from maskrt.cli.scores import print_scores

    scores = run_demo(bundle or demo_bundle(), out, scenes, threads, print_line)
    print_scores(scores)
    say(f"look at {out / 'report.html'}, {out / 'contact_sheet.png'} and {out / 'overlay'}")
