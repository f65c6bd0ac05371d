"""`maskrt run`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.shared import (
    BundlePath,
    Device,
    Kernels,
    MaxMegapixels,
    Precision,
    Provider,
    Region,
    RegionFrom,
    Settings,
    Threads,
    Track,
)


def command(
    bundle: BundlePath,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Image, folder, 'glob*' in quotes, or video.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results, new or empty.")],
    write: Annotated[
        str,
        typer.Option(help="Files to write: mask, overlay, segments, probability, label. overlay holds the image."),
    ] = "mask",
    roi: Region = None,
    roi_from: RegionFrom = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier run; what is done stays.")] = False,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, help="Frames that the networks take at a time.")
    ] = 1,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="DIR", help="Write what every stage took and gave. A trace is large and holds pictures."
        ),
    ] = None,
    provider: Provider = "cpu",
    device: Device = None,
    kernels: Kernels = "cpu",
    precision: Precision = "fp32",
    threads: Threads = None,
    settings: Settings = None,
    max_megapixels: MaxMegapixels = 50,
    track: Track = None,
) -> None:
    """Segment images or a video with a bundle.

    Writes OUT/mask/STEM.png and so on, and OUT/results.jsonl with one line per frame. No image is written unless
    --write names overlay or --trace is given. Exit code 3: some frames failed.

    --set changes a setting of the bundle for this run; a key that the bundle does not have lists all that it has.
    SOSS: points_per_side, prompts, uncovered and others. Two stages: patches; one of patch_count, patch_fraction and
    uncertainty; rank; windows; target.

    With --batch, N frames are read, segmented and written at a time. The encoder takes regions of one shape together.
    Memory grows with N. Batched results can differ by rounding. Build engines for --provider tensorrt with the same
    --batch.

    \b
    Example:
      maskrt scenes --seed 900000 --count 2 --size 640x360 --out out/scenes
      maskrt run export/demo/bundle out/scenes/images --out out/first --roi-from out/scenes/instances
      maskrt run bundles/ward ward/ --out out/ward --roi 400,200,640,480 --write mask,segments --set points_per_side=20
      maskrt run bundles/retina fundus/ --out out/retina --set patches=4 --set windows=sliding
    """
    from maskrt.cli.batch import run_with_progress
    from maskrt.cli.options import on_device, parse_list, parse_region, parse_settings
    from maskrt.cli.regions import advise_regions
    from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
    from maskrt.runtime.engines.loading import as_loaded
    from maskrt.runtime.files import sha256_of
    from maskrt.runtime.io.records import RunSettings
    from maskrt.runtime.io.sinks import FolderSink
    from maskrt.runtime.io.sources import open_source
    from maskrt.runtime.kinds.commands import require_command
    from maskrt.runtime.kinds.open import open_pipeline
    from maskrt.runtime.pipelines.run import Pipeline
    from maskrt.runtime.pipelines.trace import TracedPipeline, Tracer

    region = parse_region(roi, roi_from)
    overrides = parse_settings(settings or [])
    opened = open_bundle(bundle, precision)
    require_command(opened, "run")
    recorded = {**overrides, "provider": provider, "precision": precision}
    run_settings = RunSettings(sha256_of(bundle / MANIFEST), opened.manifest.classes, recorded)
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(source, int(max_megapixels * 1e6), track))
        provider = on_device(provider, device)
        tracer = None if trace is None else Tracer(trace)
        wrap = as_loaded if tracer is None else tracer.wrap_session
        opening = open_pipeline(opened, provider, threads, kernels, settings=overrides, wrap_session=wrap)
        loaded = stack.enter_context(opening)
        pipeline: Pipeline = loaded if tracer is None else TracedPipeline(loaded, tracer)
        sink = stack.enter_context(FolderSink(out, parse_list(write), run_settings, resume))
        advise_regions(opened, region)
        code = run_with_progress(pipeline, frames, sink, out, region, resume, "frames", batch)
    raise typer.Exit(code)
