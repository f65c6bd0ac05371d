"""`maskrt eval-interactive`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskrt.cli.shared import BundlePath, ClickProvider, Device, MaxMegapixels, Settings, Threads


def command(
    bundle: BundlePath,
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Image, folder, or 'glob*' in quotes, to click on.")],
    truth: Annotated[
        Path,
        typer.Option("--truth", metavar="DIR", help="Truth DIR/STEM.png: 0 is ground, each other value is an object."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the results, from which a stopped evaluation goes on.")
    ],
    table: Annotated[
        bool,
        typer.Option("--table", help="Write OUT/table.md; measure all eight configurations unless --configs is given."),
    ] = False,
    configs: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Configurations to measure, explained above: all, or some of none, R+E+x, R, C, E, x, R+x, R+U+x.  "
            "[none,R+E+x]",
        ),
    ] = None,
    limits: Annotated[
        str, typer.Option(metavar="LIST", help="Limits CLICKS@PERCENT: most clicks, and IoU to reach.")
    ] = "20@85,30@90",
    protocol: Annotated[
        Literal["paper", "wseseg"],
        typer.Option(help="Measure as the paper says, or as its authors' later public code does, explained below."),
    ] = "paper",
    failed: Annotated[
        Literal["accept", "give-up"] | None,
        typer.Option(
            help="What the user does with an object whose mask is not good enough after the last click.  [accept]"
        ),
    ] = None,
    min_area: Annotated[int, typer.Option(min=1, help="Leave out objects with fewer pixels.")] = 100,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures and all objects as JSON.")
    ] = None,
    provider: ClickProvider = "cpu",
    device: Device = None,
    threads: Threads = None,
    settings: Settings = None,
    max_megapixels: MaxMegapixels = 50,
) -> None:
    """Measure how many clicks objects take.

    A simulated user segments all objects in a row, with and without learning, with a fresh decoder for every
    configuration and limit. The results are the number of clicks (NoC) and the failure rate (FR, percent).

    \b
    Letter  the decoder learns from
    R, C    each click; R undoes it after the object, C keeps it
    E, U    the accepted mask; E erodes its outline, U leaves it untreated
    x       all clicks of an object, at its end
    R+E+x   all three, which is the whole published method
    none    nothing

    An object fails if its mask is below the limit's IoU after the last click. With --failed accept, the user accepts
    it all the same, and the decoder learns from its mask, errors included. With --failed give-up, it learns from the
    clicks only. The paper does not say what follows a failure; --min-area is ours, too.

    With --protocol wseseg, an object that takes all clicks has failed even if the last one sufficed, it teaches nothing
    in the end, and R is not undone (the code means to, and puts nothing back). The code differs in more, which
    docs/interactive.md lists. Settings (--set): erosions, learning_rate and mask_learning_rate.

    The figures are printed, and kept in OUT as one file for each configuration and limit. The same command again goes
    on where it stopped. OUT/embeddings holds the encoder's output for each image, some MB each; remove it at the end.
    Exit codes: 0 done, 1 failed, 2 unusable input or options, 3 some images were left out, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt scenes --domain novel --family stars --seed 920000 --count 1 --size 256x256 --out out/novel
      maskrt eval-interactive export/demo/interactive out/novel/images --truth out/novel/truth --out out/noc \\
        --limits 3@85
      maskrt eval-interactive bundles/sam photos/ --truth instances/ --out out/clicks --table
    """
    from maskrt.benchmarks.harness.report_json import environment
    from maskrt.cli.click_runs import ClickRun, open_survey, run_all
    from maskrt.cli.click_scores import ClickReport, click_markdown, print_click_table
    from maskrt.cli.options import on_device, parse_limits, parse_names, parse_settings
    from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
    from maskrt.runtime.cpus import usable_cpus
    from maskrt.runtime.errors import InputError
    from maskrt.runtime.evaluation.click_sequence import Failed
    from maskrt.runtime.evaluation.clicks import CONFIGURATIONS
    from maskrt.runtime.files import sha256_of, write_bytes
    from maskrt.runtime.kinds.commands import require_command
    from maskrt.runtime.pipelines.run import SOME_FRAMES_FAILED

    if protocol == "wseseg" and failed is not None:
        raise InputError("--protocol wseseg says what follows a failed object: leave --failed out")
    at_the_end: Failed = "skip" if protocol == "wseseg" else failed or "accept"
    names = parse_names(configs or ("all" if table else "none,R+E+x"), "--configs", CONFIGURATIONS)
    chosen_limits, overrides = parse_limits(limits), parse_settings(settings or [])
    opened = open_bundle(bundle)
    require_command(opened, "eval-interactive")
    pictures = open_survey(images, truth, min_area, int(max_megapixels * 1e6))
    run = ClickRun(opened, overrides, on_device(provider, device), threads, at_the_end, protocol)
    sequences = run_all(run, pictures, names, chosen_limits, out)
    print_click_table(pictures.survey, sequences, protocol)
    if table:
        write_bytes(out / "table.md", click_markdown(pictures.survey, sequences, protocol).encode())
    if json is not None:
        survey, manifest = pictures.survey, sha256_of(bundle / MANIFEST)
        counts = len(survey.planned), survey.objects, survey.left_out, survey.failed
        measured = environment(threads or usable_cpus()), tuple(sequences)
        write_bytes(json, ClickReport(*counts, manifest, overrides, at_the_end, protocol, *measured).to_json())
    raise typer.Exit(SOME_FRAMES_FAILED if pictures.survey.failed else 0)
