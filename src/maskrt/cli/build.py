"""`maskrt build`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskrt.cli.interrupt import INTERRUPTS, Interrupted, is_interrupt
from maskrt.cli.say import say
from maskrt.cli.shared import BundlePath, Device, Precision, Settings


def command(
    bundle: BundlePath,
    engine: Annotated[Literal["tensorrt"], typer.Option("--engine", help="Engine to build for.")],
    workspace: Annotated[
        int | None,
        typer.Option("--workspace", metavar="MB", min=1, help="GPU memory that the builder may use to try kernels."),
    ] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Round float32 products to 10 bits: faster, but the answer changes a little.")
    ] = False,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, help="The largest --batch that maskrt run will use.")
    ] = 1,
    device: Device = None,
    refit_from: Annotated[
        Path | None,
        typer.Option("--refit-from", metavar="OLD", help="Bundle whose decoder engines get this one's weights."),
    ] = None,
    precision: Precision = "fp32",
    settings: Settings = None,
) -> None:
    """Build a bundle's TensorRT engines.

    They serve --provider tensorrt on a GPU of this machine. An engine is code for one GPU, driver and TensorRT: build
    it on the machine where it will run, and again when one of them changes. Engines that exist already are kept. They
    take the sizes that follow from the bundle's settings, so give --batch and --set points_per_batch, tile or patches
    here as you will give them to maskrt run and maskrt refine. Engines are written to BUNDLE/engines/TARGET, or to your
    cache if that cannot be written; only you can read them.

    After further training of a decoder, --refit-from takes the engines of the older bundle and gives them the new
    weights, which is faster than a build. An engine that cannot be refitted is built, and its line says why.

    Exit codes: 0 done, 1 failed, 2 unusable input or options, 130 stopped with Ctrl-C; finished engines are kept.

    \b
    Example:
      maskrt build bundles/ward --engine tensorrt --workspace 4000
      maskrt run bundles/ward ward/ --out out/ward --provider tensorrt
      maskrt build bundles/tuned --engine tensorrt --workspace 4000 --refit-from bundles/ward
    """
    from maskrt.cli.options import parse_settings
    from maskrt.cli.progress import PhaseProgress
    from maskrt.runtime.bundle.bundle import open_bundle
    from maskrt.runtime.bundle.settings import with_settings
    from maskrt.runtime.engine_build.builder import BuildSettings, EngineBuilder

    opened = with_settings(open_bundle(bundle, precision), parse_settings(settings or []))
    older = None if refit_from is None else open_bundle(refit_from, precision)
    builder = EngineBuilder(opened, BuildSettings(workspace, tf32, batch), device=device or 0, refit_from=older)
    say(f"{bundle}: for {builder.target}")
    try:
        with PhaseProgress() as progress:
            for number, role in enumerate(builder.roles, 1):
                at = f"{number} of {len(builder.roles)}, {role}"
                built = builder.build(role, lambda phase, *steps, at=at: progress.tell(f"{at}: {phase}", *steps))
                why = f" (not refitted: {built.why})" if built.why else ""
                say(f"  {role}: {built.how}: {built.engine}{why}")
    except INTERRUPTS as error:
        if not is_interrupt(error):
            raise
        message = "interrupted: engines built so far are kept; the same command builds the rest"
        raise Interrupted(message) from error
