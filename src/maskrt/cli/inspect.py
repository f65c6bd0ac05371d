"""`maskrt inspect`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.say import say
from maskrt.cli.shared import BundlePath, Settings


def command(
    bundle: BundlePath,
    sizes: Annotated[
        list[str] | None,
        typer.Option(
            "--size", metavar="GRAPH.INPUT.AXIS=N", help="Assume this size of a dynamic axis; may be repeated."
        ),
    ] = None,
    ops: Annotated[bool, typer.Option("--ops", help="Print each operator's share of a graph's cost.")] = False,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all that is printed as JSON.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Say what a bundle holds and what it costs.

    The costs are those of one run of each graph. They are counted from the ONNX files, and no graph runs. GFLOPs are 2
    x multiply-adds / 1e9. Peak is the most bytes of activations that live at once, without weights, if the nodes run in
    the file's order and none in place; an engine may take less, or more for its own workspace. Dynamic axes have the
    usual sizes of maskrt build, which follow --set. Totals count each graph once, so they are not the cost of a frame:
    SOSS runs token_side for every batch of prompts.

    The result is printed; --json writes it too. The costs need maskrt[export]: without it, what the bundle holds is
    printed and written, and --size and --ops are refused. Exit codes: 0 done, 1 failed or the cost of a graph does not
    follow from its input sizes (its node is named, and the rest is printed), 2 unusable input or options.

    \b
    Example:
      maskrt inspect export/demo/bundle
      maskrt inspect bundles/ward --ops --size encoder.image.1=768
    """
    import msgspec

    from maskrt.cli.options import parse_axes, parse_settings
    from maskrt.runtime.bundle.bundle import open_bundle
    from maskrt.runtime.bundle.describe import describe, description_lines
    from maskrt.runtime.bundle.settings import with_settings
    from maskrt.runtime.files import write_bytes

    opened = with_settings(open_bundle(bundle), parse_settings(settings or []))
    chosen = parse_axes(sizes or [])
    description = describe(opened)
    say(f"{bundle}:", *(f"  {line}" for line in description_lines(description)))

    found: dict[str, object] = {"bundle": description}
    code = 0
    if find_spec("onnx") is None and not (ops or chosen):
        say("the costs are not counted: they need onnx: pip install 'maskrt[export]'", err=True)
    else:
        from maskrt.cli.costs import print_costs, print_operators
        from maskrt.export.bundles.inspection import graph_reports, totals_of

        reports = graph_reports(opened, chosen)
        found["graphs"], found["totals"] = reports, (totals := totals_of(opened, reports))
        print_costs(reports, totals)
        if ops:
            print_operators(reports)
        code = 0 if all(report.cost is not None for report in reports) else 1
    if json is not None:
        write_bytes(json, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    raise typer.Exit(code)
