"""`maskrt export ...`, which needs PyTorch and runs where the checkpoints are."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskrt.cli.export_options import Activation, Bgr, Output, Overwrite, RoiExpected, Scale, Upsample, scale_of
from maskrt.cli.say import say
from maskrt.cli.shared import BundlePath, MaxMegapixels, Region, RegionFrom, Threads

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Turn checkpoints into ONNX. Needs maskrt[export].")


@app.callback()
def _group() -> None:
    """Make typer keep the name of a command even if there is only one."""


@app.command("soss")
def soss(
    segmenter: Annotated[
        str,
        typer.Option(metavar="KIND:FILE", help="Segmenter, such as deeplabv3plus_resnet50:FILE or two-stage:BUNDLE."),
    ],
    sam: Annotated[str, typer.Option(metavar="KIND:FILE", help="SAM: vit_b, vit_l, vit_h or custom.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")],
    input_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size of the segmenter's input; 512x512 or what an ONNX file has.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Mean of RGB / 255 in training; ImageNet's if left out.")
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="Standard deviation of RGB / 255 in training; ImageNet's if left out."),
    ] = None,
    scale: Scale = None,
    output: Output = None,
    activation: Activation = None,
    bgr: Bgr = False,
    upsample: Upsample = False,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Class names in the order of the logits; one alone is the second of two."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Mask, voting or refiner setting to write; may repeat."),
    ] = None,
    refiner: Annotated[
        str | None,
        typer.Option(metavar="KIND:FILE", help="CRM refiner to add; --set select=full or the like turns it on."),
    ] = None,
    roi_expected: RoiExpected = False,
    note: Annotated[str, typer.Option(help="Text to keep in the bundle.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Export a segmenter and a SAM as a bundle for maskrt run.

    Writes the folder OUT with bundle.json and an ONNX file for each graph. Every graph is compared with PyTorch first;
    a graph that differs is not written, and a failed export leaves nothing behind. Settings (--set): points_per_side,
    pred_iou_thresh, vote, uncovered, target, select and others; a wrong KEY lists all keys.

    Exit codes: 0 done, 1 failed, 2 unusable input or options, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt export soss --segmenter deeplabv3plus_resnet50:seg.pt --sam vit_b:sam_vit_b_01ec64.pth --out bundles/ward
      maskrt run bundles/ward ward/ --out out/ward --roi 400,200,640,480
    """
    from maskrt.cli.options import parse_list, parse_settings, parse_size, parse_triple
    from maskrt.export.bundles.onnx_answer import OnnxOptions
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
        scale=scale_of(scale),
        onnx=OnnxOptions(output, activation, bgr, upsample),
        classes=None if classes is None else parse_list(classes),
        refiner=refiner,
        **chosen,
        roi_expected=roi_expected,
        note=note,
        overwrite=overwrite,
        report=say,
    )


@app.command("refiner")
def refiner(
    crm: Annotated[str, typer.Option(metavar="KIND:FILE", help="CRM: resnet50 for the public checkpoint, or custom.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Setting to write: select, tile or memory_limit_mb; may repeat."
        ),
    ] = None,
    note: Annotated[str, typer.Option(help="Text to keep in the bundle.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Export a CRM mask refiner as a bundle for maskrt refine.

    Writes the folder OUT. Every graph, and the whole cascade on a small picture, is compared with PyTorch first; if
    anything differs, nothing is written. For custom, FILE with its suffix replaced by .json holds the sizes.

    Exit codes: 0 done, 1 failed, 2 unusable input or options, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt export refiner --crm resnet50:model_45705 --out bundles/crm
      maskrt refine bundles/crm photos/ --masks rough/ --out out/refined
    """
    from maskrt.cli.options import parse_settings
    from maskrt.export.bundles.refiner import export_refiner
    from maskrt.runtime.bundle.settings import with_overrides
    from maskrt.runtime.bundle.specs import RefinementSpec

    refinement = with_overrides(RefinementSpec(), parse_settings(settings or []))
    export_refiner(crm, out, refinement=refinement, note=note, overwrite=overwrite, report=say)


@app.command("two-stage")
def two_stage(
    low: Annotated[
        str, typer.Option(metavar="KIND:FILE", help="First network, unet:FILE or onnx:FILE; sees 1/8 of the size.")
    ],
    high: Annotated[
        str, typer.Option(metavar="KIND:FILE", help="Second network, likewise; sees patches at full size.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:FILE", help="One network for the whole picture, likewise, for maskrt eval to compare with."
        ),
    ] = None,
    patches: Annotated[
        int,
        typer.Option(min=1, help="Patches along the longest side, and how many stage 2 looks at, as in the paper."),
    ] = 8,
    size: Annotated[
        int, typer.Option(min=32, help="Longest side in pixels of the picture that is cut into patches.")
    ] = 768,
    fit: Annotated[
        Literal["square", "keep"],
        typer.Option(
            help="Resize every region to SIZE x SIZE, as in the paper, or keep its proportions; as in training."
        ),
    ] = "square",
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B", help="Mean of RGB / 255 in training; if left out, a U-Net gets values of 0 to 255."
        ),
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Standard deviation of RGB / 255 in training; likewise.")
    ] = None,
    scale: Scale = None,
    output: Output = None,
    activation: Activation = None,
    bgr: Bgr = False,
    upsample: Upsample = False,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Class names in the order of the logits."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Further setting to write, such as windows=sliding; may repeat."
        ),
    ] = None,
    roi_expected: RoiExpected = False,
    note: Annotated[str, typer.Option(help="Text to keep in the bundle.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Export two segmenters, of which the second looks again where the first is uncertain.

    unet is a checkpoint of the two-stage document's U-Net, of any width, with the public code's keys. onnx is any
    segmenter that maps [B, 3, H, W] to logits [B, C, H, W]. Both networks take the same kind of picture and have the
    same classes; a network with one logit has two classes. Writes the folder OUT. A U-Net, and the whole pipeline, is
    compared with PyTorch first; if anything differs, nothing is written.

    Settings (--set): patch_count, patch_fraction or uncertainty say how many patches stage 2 looks at; rank is
    probability or logit; windows is grid, sliding or off; target is the class of interest.

    Exit codes: 0 done, 1 failed, 2 unusable input or options, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt export two-stage --low unet:low.pth --high unet:high.pth --patches 8 --out bundles/cells
      maskrt run bundles/cells photos/ --out out/cells --set patch_fraction=0.25
    """
    from maskrt.cli.options import parse_list, parse_numbers, parse_settings
    from maskrt.export.bundles.onnx_answer import OnnxOptions
    from maskrt.export.bundles.two_stage import export_two_stage
    from maskrt.runtime.bundle.settings import with_overrides
    from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec

    export_two_stage(
        low,
        high,
        out,
        baseline=baseline,
        size=size,
        fit=fit,
        mean=None if mean is None else parse_numbers(mean, "--mean"),
        std=None if std is None else parse_numbers(std, "--std"),
        scale=scale_of(scale),
        onnx=OnnxOptions(output, activation, bgr, upsample),
        classes=None if classes is None else parse_list(classes),
        patch_selection=with_overrides(PatchSelectionSpec(), {"patches": patches, **parse_settings(settings or [])}),
        roi_expected=roi_expected,
        note=note,
        overwrite=overwrite,
        report=say,
    )


@app.command("interactive")
def interactive(
    sam: Annotated[str, typer.Option(metavar="KIND:FILE", help="SAM: vit_b, vit_l, vit_h or custom.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Setting to write, such as learning_rate=1e-5; may repeat."),
    ] = None,
    note: Annotated[str, typer.Option(help="Text to keep in the bundle.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Export a SAM whose mask decoder learns from clicks, without PyTorch where it is used.

    Writes the folder OUT with the encoder, the decoder with its weights as inputs, and the training step (loss,
    gradient, Adam). Each graph is compared with PyTorch first, the step over 20 steps at two learning rates; if
    anything differs, nothing is written.

    Settings (--set), with the published method's values first: click_adaptation is a step after each click: R is undone
    after the object, C is kept, or off. result_mask is a step on the accepted mask: E erodes its outline, U leaves it
    untreated, or off. click_mask=true adds the object's clicks to its last step. erosions=5, learning_rate=1e-6.

    Exit codes: 0 done, 1 failed, 2 unusable input or options, 130 stopped with Ctrl-C.

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
    export_interactive(sam, out, adaptation=adaptation, note=note, overwrite=overwrite, report=say)


@app.command("precisions")
def precisions(
    bundle: BundlePath,
    precision: Annotated[str, typer.Option(metavar="A,B", help="Precisions to add: fp16, int8 or both.")],
    calibrate: Annotated[
        str, typer.Option(metavar="IMAGES", help="10 to 50 images like those in use: folder, or 'glob*' in quotes.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new bundle.")],
    roi: Region = None,
    roi_from: RegionFrom = None,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", metavar="DIR", help="Rough masks DIR/STEM.png, for a bundle with a refiner only."),
    ] = None,
    keep: Annotated[str, typer.Option(metavar="A,B", help="Networks to keep in float32, such as encoder.")] = "",
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Least mean IoU that the final masks must have with those of fp32.")
    ] = 0.98,
    threads: Threads = None,
    max_megapixels: MaxMegapixels = 50,
    overwrite: Overwrite = False,
) -> None:
    """Add lower precisions to a bundle, checked against float32 on your pictures.

    Writes a new bundle that holds all of the old one and an ONNX file per network and precision; it needs no checkpoint
    and no PyTorch. Choose the precision at run time with --precision. fp16 is for GPUs; ONNX Runtime on a CPU computes
    it in float32. int8 is for CPUs, with ranges measured on the pictures.

    The whole pipeline runs on the CPU on every picture, in float32 and in each precision, for fp16 with the roundings
    of a GPU. The bundle keeps the measured agreement. If the final masks of a precision have a mean IoU below
    --tolerance with those of float32, it is refused, and nothing is written.

    Exit codes: 0 done, 1 failed, 2 unusable input or options, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt export precisions bundles/ward --precision fp16,int8 --calibrate ward/ --out bundles/small
      maskrt run bundles/small recordings/ --out out/ward --precision int8
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
        report=say,
    )


@app.command("sam")
def sam(
    sam: Annotated[str, typer.Option(metavar="KIND:FILE", help="SAM: vit_b, vit_l, vit_h or custom.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for two ONNX files and config.yaml.")],
    name: Annotated[str, typer.Option(help="Name of the model, for the program's list and the file names.")],
    names: Annotated[
        Literal["anylabeling"], typer.Option(help="Program whose names the inputs and outputs get.")
    ] = "anylabeling",
    overwrite: Overwrite = False,
) -> None:
    """Export a SAM alone, for other programs: AnyLabeling, X-AnyLabeling and the official ONNX example.

    Writes two ONNX files and config.yaml to OUT, and prints their paths. maskrt's own pipelines take bundles instead:
    maskrt export soss. Exit codes: 0 done, 1 failed, 2 unusable input or options, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt export sam --sam vit_b:sam_vit_b_01ec64.pth --names anylabeling --name sam_vit_b --out out/anylabeling
    """
    from maskrt.export.bundles.anylabeling import export_anylabeling

    writers = {"anylabeling": export_anylabeling}
    for path in writers[names](sam, out, name=name, overwrite=overwrite, report=say):
        say(str(path))
