"""`maskrt eval-interactive`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskrt.cli.shared import BundlePath, ClickProvider, Device, MaxMegapixels, Settings, Threads


def command(
    bundle: BundlePath,
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Image, folder, or 'glob*' in quotes.")],
    truth: Annotated[
        Path, typer.Option("--truth", metavar="DIR", help="DIR/STEM.png: 0 is ground, each other value one object.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder that a stopped evaluation goes on from.")],
    table: Annotated[
        bool, typer.Option("--table", help="All eight configurations unless --configs says which; OUT/table.md too.")
    ] = False,
    configs: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="all, or some of none, R+E+x, R, C, E, x, R+x, R+U+x.  [none,R+E+x]"),
    ] = None,
    limits: Annotated[str, typer.Option(metavar="LIST", help="CLICKS@PERCENT of IoU.")] = "20@85,30@90",
    failed: Annotated[
        Literal["accept", "give-up"],
        typer.Option(help="What becomes of an object whose clicks did not suffice."),
    ] = "accept",
    min_area: Annotated[int, typer.Option(min=1, help="Pixels; smaller objects are left out.")] = 100,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write figures and objects.")] = None,
    provider: ClickProvider = "cpu",
    device: Device = None,
    threads: Threads = None,
    settings: Settings = None,
    max_megapixels: MaxMegapixels = 50,
) -> None:
    """Measure how many clicks objects take, with and without learning: a simulated user segments all of them in a row.

    Number of clicks (NoC) and failure rate (FR, percent) for every configuration and limit, each from a fresh decoder.
    A configuration's name says what is learnt from: R or C, each click, undone after the object (R) or kept (C); E or
    U, the accepted mask, eroded or untreated; x, all clicks of an object in the end; none, nothing.

    An object fails where the last click leaves its mask below the limit's IoU. A user who accepts it all the same
    teaches what is wrong with it; one who gives it up, as --failed give-up, teaches its clicks alone.

    The same command again goes on where it was stopped. OUT/embeddings holds what the encoder made of each image, some
    MB each, so that it is asked once; remove it in the end. Exit code 3: some images were left out.

    \b
    Example:
      maskrt scenes --seed 900000 --count 5 --out out/scenes
      maskrt eval-interactive bundles/sam out/scenes/images --truth out/scenes/instances --out out/clicks --table
    """
    from maskrt.benchmarks.harness.report_json import environment
    from maskrt.cli.click_runs import ClickRun, open_survey, run_all
    from maskrt.cli.click_scores import ClickReport, click_markdown, print_click_table
    from maskrt.cli.options import on_device, parse_limits, parse_names, parse_settings
    from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
    from maskrt.runtime.cpus import usable_cpus
    from maskrt.runtime.evaluation.clicks import CONFIGURATIONS
    from maskrt.runtime.files import sha256_of, write_bytes
    from maskrt.runtime.kinds.commands import require_command
    from maskrt.runtime.pipelines.run import SOME_FRAMES_FAILED

    names = parse_names(configs or ("all" if table else "none,R+E+x"), "--configs", CONFIGURATIONS)
    chosen_limits, overrides = parse_limits(limits), parse_settings(settings or [])
    opened = open_bundle(bundle)
    require_command(opened, "eval-interactive")
    pictures = open_survey(images, truth, min_area, int(max_megapixels * 1e6))
    run = ClickRun(opened, overrides, on_device(provider, device), threads, failed)
    sequences = run_all(run, pictures, names, chosen_limits, out)
    print_click_table(pictures.survey, sequences)
    if table:
        write_bytes(out / "table.md", click_markdown(pictures.survey, sequences).encode())
    if json is not None:
        survey, manifest = pictures.survey, sha256_of(bundle / MANIFEST)
        counts = len(survey.planned), survey.objects, survey.left_out, survey.failed
        measured = environment(threads or usable_cpus()), tuple(sequences)
        write_bytes(json, ClickReport(*counts, manifest, overrides, failed, *measured).to_json())
    raise typer.Exit(SOME_FRAMES_FAILED if pictures.survey.failed else 0)
