"""`maskrt refine`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.shared import (
    BundlePath,
    Device,
    Kernels,
    MaxMegapixels,
    MemoryLimit,
    Precision,
    Provider,
    Select,
    Threads,
    Tile,
    Track,
)


def command(
    bundle: BundlePath,
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Image, folder, or 'glob*' in quotes, to refine on.")],
    masks: Annotated[
        Path, typer.Option("--masks", metavar="DIR", help="Rough masks DIR/STEM.png, as large as the images.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    labels: Annotated[bool, typer.Option("--labels", help="Masks hold class numbers: refine class by class.")] = False,
    select: Select = None,
    tile: Tile = None,
    memory_limit: MemoryLimit = None,
    write: Annotated[
        str, typer.Option(help="What to write, with commas: mask, overlay (contains the image), probability, label.")
    ] = "mask",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier run; finished images stay.")] = False,
    provider: Provider = "cpu",
    device: Device = None,
    kernels: Kernels = "cpu",
    precision: Precision = "fp32",
    threads: Threads = None,
    max_megapixels: MaxMegapixels = 50,
    track: Track = None,
) -> None:
    """Refine rough masks at full resolution.

    The bundle must hold a refiner. A rough mask is a grey picture: 0 is background, 255 is the object, and values
    between are probabilities. Writes OUT/mask/STEM.png and what else --write names, and OUT/results.jsonl with one line
    per image.

    Only --select full gives the network's own answer. The other selections are faster and change it a little (see
    maskrt bench refine): bbox decodes boxes around the mask's regions, contour a band around its outline, strided:N
    each Nth pixel of each Nth row and then the uncertain squares, adaptive the same with squares of 4 and of 2.

    Exit codes: 0 done, 1 failed, 2 unusable input or options, 3 some images failed, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt scenes --seed 900000 --count 2 --size 640x360 --out out/scenes
      maskrt run export/demo/bundle out/scenes/images --out out/rough --roi-from out/scenes/instances
      maskrt refine export/demo/bundle out/scenes/images --masks out/rough/mask --out out/refined --write mask,overlay
      maskrt refine bundles/crm photos/big.png --masks rough/ --out out/big --select adaptive --memory-limit 3000
    """
    from maskrt.cli.batch import run_with_progress
    from maskrt.cli.options import on_device, parse_list, refine_options
    from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
    from maskrt.runtime.bundle.settings import with_settings
    from maskrt.runtime.errors import InputError
    from maskrt.runtime.files import sha256_of
    from maskrt.runtime.io.records import RunSettings
    from maskrt.runtime.io.sinks import FolderSink
    from maskrt.runtime.io.sources import open_source
    from maskrt.runtime.kinds.commands import require_command
    from maskrt.runtime.pipelines.base import kernel_set
    from maskrt.runtime.pipelines.refine.pipeline import RefinePipeline, rough_reader, sha256_of_masks

    max_pixels = int(max_megapixels * 1e6)
    options = refine_options(select, tile, memory_limit)
    rough_of = rough_reader(masks, labels, max_pixels)
    opened = open_bundle(bundle, precision)
    require_command(opened, "refine")
    own_kernels = kernel_set(kernels)
    kinds = parse_list(write)
    if "segments" in kinds:
        raise InputError("a refined mask has no segments: leave segments out of --write")
    recorded = {**options, "provider": provider, "precision": precision, "labels": labels}
    recorded["masks_sha256"] = sha256_of_masks(masks)
    settings = RunSettings(sha256_of(bundle / MANIFEST), (), recorded)
    with ExitStack() as stack:
        source = stack.enter_context(open_source(images, max_pixels, track))
        pipeline = stack.enter_context(
            RefinePipeline(with_settings(opened, options), rough_of, on_device(provider, device), threads, own_kernels)
        )
        sink = stack.enter_context(FolderSink(out, kinds, settings, resume))
        code = run_with_progress(pipeline, source, sink, out, None, resume, "images")
    raise typer.Exit(code)
