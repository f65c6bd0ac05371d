"""`maskrt eval`."""

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
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Image, folder, or 'glob*' in quotes, to score on.")],
    truth: Annotated[
        Path, typer.Option("--truth", metavar="DIR", help="Ground truth DIR/STEM.png; white is the class.")
    ],
    labels: Annotated[
        bool,
        typer.Option(
            "--labels", help="The truth is label pictures with the bundle's class numbers: score every class."
        ),
    ] = False,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", metavar="DIR", help="Score the refinement of these rough masks, DIR/STEM.png."),
    ] = None,
    roi: Region = None,
    roi_from: RegionFrom = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the scores as JSON.")] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write DIR/STEM.png: input, truth, masks, and what they come from."),
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
    """Score a bundle against ground truth.

    A bundle of kind soss is scored in three ways: the segmenter alone, hard voting, and SOSS. A two-stage bundle is
    scored with stage 1 alone, with both stages, and with the baseline where the bundle holds one. Accuracy, F1,
    precision, recall, IoU and AUC of the class of interest, inside the regions of interest, are given twice: pooled
    over all pixels, and per image, as the mean of the images' values. Dice is per image. With --labels, IoU, Dice,
    precision and recall of each class and their mean are given in both ways. With --masks, a refiner is scored: IoU,
    Dice and mean boundary accuracy (mBA) of the rough masks and of the refined ones.

    The document's "minimum area of 5 pixels for any SAM segmentation mask" is min_mask_region_area=5 here, as in SAM's
    own generator: holes and islands of fewer than 5 pixels of the region are removed from each mask, and an island that
    is all of a mask stays.

    The scores are printed; --json writes them too. No image is written unless --figures asks for it; the last panel of
    a two-stage figure frames what stage 2 looked at again. Exit codes: 0 done, 1 failed, 2 unusable input or options, 3
    some images have no score, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt scenes --seed 900000 --count 2 --size 640x360 --out out/scenes
      maskrt eval export/demo/bundle out/scenes/images --truth out/scenes/truth --roi-from out/scenes/instances
      maskrt eval bundles/crm photos --truth truth --masks rough --set select=strided:4
    """
    from maskrt.cli.eval_refiner import score_refiner
    from maskrt.cli.options import on_device, parse_region, parse_settings
    from maskrt.cli.progress import FrameProgress, tell_notes
    from maskrt.cli.regions import advise_regions
    from maskrt.cli.scores import print_class_scores, print_scores
    from maskrt.runtime.bundle.bundle import open_bundle
    from maskrt.runtime.errors import InputError, NetworkError
    from maskrt.runtime.evaluation.class_scores import ClassScores
    from maskrt.runtime.evaluation.compare import Scores
    from maskrt.runtime.files import write_bytes
    from maskrt.runtime.io.masks import read_truth
    from maskrt.runtime.io.sinks import png_bytes
    from maskrt.runtime.io.sources import open_source
    from maskrt.runtime.kinds.commands import require_command
    from maskrt.runtime.kinds.open import open_pipeline
    from maskrt.runtime.kinds.table import kind_of
    from maskrt.runtime.pipelines.run import SOME_FRAMES_FAILED
    from maskrt.runtime.types import BadFrame

    provider, overrides = on_device(provider, device), parse_settings(settings or [])
    max_pixels = int(max_megapixels * 1e6)
    opened = open_bundle(bundle, precision)
    require_command(opened, "eval" if masks is None else "eval --masks")
    if labels and masks is not None:
        raise InputError("--masks scores a refiner on masks of one class: leave --labels out")
    if not truth.is_dir():
        raise InputError(f"{truth}: no such folder; it should hold a STEM.png per image")
    if masks is not None:
        if roi is not None or roi_from is not None or figures is not None:
            raise InputError("--masks scores a refiner on whole images: leave --roi, --roi-from and --figures out")
        raise typer.Exit(
            score_refiner(opened, images, truth, masks, json, provider, threads, kernels, overrides, max_pixels, track)
        )
    evaluation = kind_of(opened).evaluate
    assert evaluation is not None  # require_command has refused other kinds
    if labels and not opened.manifest.classes:
        raise InputError(f"{bundle}, of kind {opened.manifest.kind}, names no classes: leave --labels out")
    region = parse_region(roi, roi_from)
    failed = []
    with (
        open_source(images, max_pixels, track) as source,
        open_pipeline(opened, provider, threads, kernels, settings=overrides) as pipeline,
        FrameProgress(source.length, "images") as progress,
    ):
        advise_regions(opened, region)
        methods = evaluation.methods_of(opened)
        scores = Scores(methods)
        of_classes = ClassScores(methods, opened.manifest.classes)
        for item in source:
            try:
                if isinstance(item, BadFrame):
                    raise InputError(item.reason)
                file = truth / f"{item.name}.png"
                wanted = of_classes.read(file, max_pixels) if labels else read_truth(file, max_pixels)
                own = region(item.name) if callable(region) else region
                compared = evaluation.compare(pipeline, item.rgb, wanted, own)
                (of_classes if labels else scores).add(compared)
                if figures is not None:
                    write_bytes(figures / f"{item.name}.png", png_bytes(evaluation.picture(compared)))
            except (InputError, NetworkError) as error:
                failed.append({"source": item.name, "reason": str(error)})
                progress.report(f"failed: {item.name}: {error}")
            progress.advance()
        tell_notes(source, progress)
    if labels:
        print_class_scores(of_classes)
    else:
        print_scores(scores)
    if json is not None:
        import msgspec

        chosen = of_classes if labels else scores
        report = {"images": chosen.images, "failed": failed, **chosen.figures()}
        write_bytes(json, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    raise typer.Exit(SOME_FRAMES_FAILED if failed else 0)
