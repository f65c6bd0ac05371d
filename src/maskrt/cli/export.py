"""`maskrt export ...`: needs PyTorch, on the machine where the checkpoints are."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskrt.cli.shared import BundlePath, MaxMegapixels, Region, RegionFrom, Threads

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Turn checkpoints into ONNX. Needs maskrt[export].")

RoiExpected = Annotated[
    bool, typer.Option("--roi-expected", help="Note that the models were trained on regions of interest.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export at --out.")]


@app.callback()
def _group() -> None:
    """Makes typer keep the name of a command even where there is only one."""


@app.command("soss")
def soss(
    segmenter: Annotated[
        str, typer.Option(metavar="KIND:FILE", help="Such as deeplabv3plus_resnet50:FILE, or two-stage:BUNDLE.")
    ],
    sam: Annotated[str, typer.Option(metavar="KIND:FILE", help="vit_b, vit_l or vit_h, or custom.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder.")],
    input_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Of the segmenter's input in pixels; 512x512 if left out.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Of RGB / 255 in training; ImageNet's if left out.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Of RGB / 255 in training; ImageNet's if left out.")
    ] = None,
    classes: Annotated[str | None, typer.Option(metavar="A,B,...", help="Names in the order of the logits.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Mask, voting or refine setting to write; may be repeated."),
    ] = None,
    refiner: Annotated[
        str | None,
        typer.Option(metavar="KIND:FILE", help="A CRM beside them; used with --set select=full or the like."),
    ] = None,
    roi_expected: RoiExpected = False,
    note: Annotated[str, typer.Option(help="Kept in the bundle.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Export a segmenter and a SAM as a bundle for maskrt run.

    Every graph is compared with PyTorch; a graph that differs is not written.

    \b
    Example:
      maskrt export soss --segmenter deeplabv3plus_resnet50:seg.pt --sam vit_b:sam_vit_b_01ec64.pth --out bundles/ward
    """
    from maskrt.cli.options import parse_list, parse_settings, parse_size, parse_triple
    from maskrt.export.bundles.soss import export_soss
    from maskrt.runtime.bundle.settings import routed
    from maskrt.runtime.bundle.specs import MasksSpec, RefinementSpec, VotingSpec

    size_wh = None if input_size is None else parse_size(input_size, "--input-size")
    sections = {"refinement": RefinementSpec(select="off"), "voting": VotingSpec(), "masks": MasksSpec()}
    chosen = routed(sections, parse_settings(settings or []))
    export_soss(
        segmenter,
        sam,
        out,
        input_hw=None if size_wh is None else size_wh[::-1],
        mean=None if mean is None else parse_triple(mean, "--mean"),
        std=None if std is None else parse_triple(std, "--std"),
        classes=None if classes is None else parse_list(classes),
        refiner=refiner,
        **chosen,
        roi_expected=roi_expected,
        note=note,
        overwrite=overwrite,
        report=print,
    )


@app.command("refiner")
def refiner(
    crm: Annotated[str, typer.Option(metavar="KIND:FILE", help="resnet50 (the public checkpoint's), or custom.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="select, tile or memory_limit_mb to write; may be repeated."),
    ] = None,
    note: Annotated[str, typer.Option(help="Kept in the bundle.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Export a CRM mask refiner as a bundle for maskrt refine.

    Every graph, and the whole cascade on a small picture, is compared with PyTorch; what differs is not written. For
    custom, FILE with its suffix replaced by .json holds the sizes.

    \b
    Example:
      maskrt export refiner --crm resnet50:model_45705 --out bundles/crm
    """
    from maskrt.cli.options import parse_settings
    from maskrt.export.bundles.refiner import export_refiner
    from maskrt.runtime.bundle.settings import with_overrides
    from maskrt.runtime.bundle.specs import RefinementSpec

    refinement = with_overrides(RefinementSpec(), parse_settings(settings or []))
    export_refiner(crm, out, refinement=refinement, note=note, overwrite=overwrite, report=print)


@app.command("two-stage")
def two_stage(
    low: Annotated[str, typer.Option(metavar="KIND:FILE", help="unet:FILE or onnx:FILE; sees 1/8 of the size.")],
    high: Annotated[str, typer.Option(metavar="KIND:FILE", help="Likewise; sees patches at full size.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder.")],
    patches: Annotated[
        int, typer.Option(min=1, help="Along the longest side, and how many are looked at again, as in the paper.")
    ] = 8,
    size: Annotated[int, typer.Option(min=32, help="Longest side in pixels of the picture with the patches.")] = 768,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Of RGB / 255 in training; a U-Net's is left at 0 to 255.")
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="Of RGB / 255 in training; likewise.")] = None,
    classes: Annotated[str | None, typer.Option(metavar="A,B,...", help="Names in the order of the logits.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Further setting to write, as windows=sliding; may repeat."),
    ] = None,
    roi_expected: RoiExpected = False,
    note: Annotated[str, typer.Option(help="Kept in the bundle.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Export two segmenters that work one after the other: the second looks again where the first is uncertainty.

    unet: a checkpoint of the two-stage document's U-Net, any width, with the public code's keys; it is compared with
    PyTorch, and so is the whole pipeline. onnx: any segmenter, [B, 3, H, W] to logits [B, C, H, W]; both of one kind
    of picture and with the same classes. Networks of one logit have two classes.

    \b
    Example:
      maskrt export two-stage --low unet:low.pth --high unet:high.pth --patches 8 --out bundles/cells
      maskrt run bundles/cells photos/ --out out/cells --set patch_fraction=0.25
    """
    from maskrt.cli.options import parse_list, parse_numbers, parse_settings
    from maskrt.export.bundles.two_stage import export_two_stage
    from maskrt.runtime.bundle.settings import with_overrides
    from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec

    export_two_stage(
        low,
        high,
        out,
        size=size,
        mean=None if mean is None else parse_numbers(mean, "--mean"),
        std=None if std is None else parse_numbers(std, "--std"),
        classes=None if classes is None else parse_list(classes),
        patch_selection=with_overrides(PatchSelectionSpec(), {"patches": patches, **parse_settings(settings or [])}),
        roi_expected=roi_expected,
        note=note,
        overwrite=overwrite,
        report=print,
    )


@app.command("interactive")
def interactive(
    sam: Annotated[str, typer.Option(metavar="KIND:FILE", help="vit_b, vit_l or vit_h, or custom.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="How sessions learn, as learning_rate=1e-5; may repeat."),
    ] = None,
    note: Annotated[str, typer.Option(help="Kept in the bundle.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Export a SAM whose mask decoder learns while it is clicked on, without PyTorch.

    Encoder, decoder with its weights as inputs, and one step of learning (loss, gradient, Adam), each compared with
    PyTorch; the step over 20 steps at two rates. --set: click_adaptation=off|R|C, result_mask=off|E|U,
    click_mask=true|false, erosions=5, learning_rate=1e-6, the published method's.

    \b
    Example:
      maskrt export interactive --sam vit_b:sam_vit_b_01ec64.pth --out bundles/clicks
      maskrt annotate bundles/clicks photos/ --out out/clicks --classes cable,tube
    """
    from maskrt.cli.options import parse_settings
    from maskrt.export.bundles.interactive import export_interactive
    from maskrt.runtime.bundle.interactive_spec import AdaptationSpec
    from maskrt.runtime.bundle.settings import with_overrides

    adaptation = with_overrides(AdaptationSpec(), parse_settings(settings or []))
    export_interactive(sam, out, adaptation=adaptation, note=note, overwrite=overwrite, report=print)


@app.command("precisions")
def precisions(
    bundle: BundlePath,
    precision: Annotated[str, typer.Option(metavar="A,B", help="fp16, int8 or both.")],
    calibrate: Annotated[
        str, typer.Option(metavar="IMAGES", help="Image, folder, or 'glob*' in quotes; some 10 to 50, as in use.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The new bundle's folder.")],
    roi: Region = None,
    roi_from: RegionFrom = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", metavar="DIR", help="Rough masks DIR/STEM.png, for a refiner alone.")
    ] = None,
    keep: Annotated[str, typer.Option(metavar="A,B", help="Networks to leave in float32, such as encoder.")] = "",
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Least mean IoU of the final masks with those of fp32.")
    ] = 0.98,
    threads: Threads = None,
    max_megapixels: MaxMegapixels = 50,
    overwrite: Overwrite = False,
) -> None:
    """Add lower precisions to a bundle, checked against float32 on your pictures. Needs no checkpoint and no PyTorch.

    Writes a new bundle that holds everything of the old one and an ONNX file per network and precision. fp16 is for
    GPUs; ONNX Runtime on a CPU computes it in float32. int8 is for CPUs, with ranges measured on the pictures. The
    whole pipeline runs on every picture in float32 and in each precision, on the CPU, for fp16 with the roundings that
    a GPU makes; what was measured stands in the bundle. A precision whose final masks have a mean IoU below --tolerance
    with those of float32 is refused, and nothing is written.
    Choose it at run time with --precision.

    \b
    Example:
      maskrt export precisions bundles/ward --precision fp16,int8 --calibrate ward/ --out bundles/ward-small
    """
    from maskrt.cli.options import parse_list, parse_region
    from maskrt.export.bundles.precisions import export_precisions
    from maskrt.runtime.evaluation.answers import Calibration

    calibration = Calibration(calibrate, parse_region(roi, roi_from), masks, int(max_megapixels * 1e6))
    export_precisions(
        bundle,
        out,
        parse_list(precision),
        calibration,
        keep=parse_list(keep),
        tolerance=tolerance,
        threads=threads,
        overwrite=overwrite,
        report=print,
    )


@app.command("sam")
def sam(
    sam: Annotated[str, typer.Option(metavar="KIND:FILE", help="vit_b, vit_l or vit_h, or custom.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for two ONNX files and config.yaml.")],
    name: Annotated[str, typer.Option(help="Shown in the program and used in file names.")],
    names: Annotated[
        Literal["anylabeling"], typer.Option(help="Whose names the inputs and outputs get.")
    ] = "anylabeling",
    overwrite: Overwrite = False,
) -> None:
    """Export a SAM alone, for other programs: AnyLabeling, X-AnyLabeling and the official ONNX example.

    maskrt's own pipelines take bundles: maskrt export soss.

    \b
    Example:
      maskrt export sam --sam vit_b:sam_vit_b_01ec64.pth --names anylabeling --name sam_vit_b --out out/anylabeling
    """
    from maskrt.export.bundles.anylabeling import export_anylabeling

    writers = {"anylabeling": export_anylabeling}
    for path in writers[names](sam, out, name=name, overwrite=overwrite, report=print):
        print(path)
