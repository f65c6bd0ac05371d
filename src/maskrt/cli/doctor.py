"""`maskrt doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.say import say, say_text


def command(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="[BUNDLE]", help="A bundle to check; say which commands take it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine has and which commands are ready.

    For the others it says what to install.

    With a bundle: check its files against their sha256, and say what kind it is and which commands take it.
    Exit code 1: the runtime itself cannot run. Exit code 2: the bundle cannot be used.

    \b
    Example:
      maskrt doctor --json
      maskrt doctor export/demo/bundle
    """
    from maskrt.runtime.doctor import bundle_lines, examine, examine_bundle, report_json, report_text

    about = None if bundle is None else examine_bundle(bundle)  # first: a bad bundle is said at once
    report = examine()
    if as_json:
        say_text(report_json(report, about))
    else:
        say_text(report_text(report))
        if about is not None:
            say(*bundle_lines(about))
    raise typer.Exit(0 if report.can_run else 1)
