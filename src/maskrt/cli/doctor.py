"""`maskrt doctor`."""

from typing import Annotated

import typer


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what this machine has and which commands are ready, and what to install for the others.

    Exit code 1: the runtime itself cannot run.

    \b
    Example:
      maskrt doctor --json
    """
    from maskrt.runtime.doctor import examine, report_json, report_text

    report = examine()
    print(report_json(report) if as_json else report_text(report))
    raise typer.Exit(0 if report.can_run else 1)
