"""Export two segmenters to a bundle for the two-stage pipeline."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskrt.export.architectures.kinds import split_kind
from maskrt.export.bundles.entries import fitness_lines, is_bundle, maskrt_version, model_entry, total_mb
from maskrt.export.bundles.folder import whole_folder
from maskrt.export.bundles.normalisation import Scale, of_unit
from maskrt.export.bundles.onnx_answer import NO_OPTIONS, OnnxOptions
from maskrt.export.bundles.stages import STAGES, Stage
from maskrt.export.bundles.two_stage_plain import look_plainly
from maskrt.export.graph_tools.graph import OPSET, TOLERANCE
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle, open_bundle
from maskrt.runtime.bundle.manifest import SCHEMA, TwoStageManifest, encode_manifest
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.bundle.two_stage_spec import (
    BASELINE,
    LEAST_SIDE,
    MAX_SIDE,
    PatchSelectionSpec,
    TwoStageSpec,
    padded_size,
    patch_side,
)
from maskrt.runtime.errors import ExportError, InputError
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline
from maskrt.runtime.types import Report

SIZE, SHRINK = 768, 8  # the document's most frequent size, and its scale of stage 1
# The public code feeds its networks with values from 0 to 255.
RAW_MEAN, RAW_STD = (0.0,), (1 / 255,)


def export_two_stage(
    low: str,
    high: str,
    out: Path,
    *,
    baseline: str | None = None,
    size: int = SIZE,
    shrink: int = SHRINK,
    fit: Literal["square", "keep"] = "square",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    scale: Scale | None = None,
    onnx: OnnxOptions = NO_OPTIONS,
    classes: tuple[str, ...] | None = None,
    patch_selection: PatchSelectionSpec | None = None,
    roi_expected: bool = False,
    note: str = "",
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> Bundle:
    """Export both networks, check them, and put the bundle at `out`. A failure or an interruption leaves nothing.

    Args:
        low, high: unet:FILE, a checkpoint of the two-stage document's U-Net in any width, or onnx:FILE.
        baseline: likewise, one network for the whole picture, which maskrt eval compares the two with; None: none.
        size: longest side in pixels of the picture that patches are taken from; stage 1 sees 1 / shrink of it.
        fit: "square", the document's, resizes every region to size x size; "keep" keeps its proportions.
        mean, std: of RGB / 255 in training, or of grey / 255 one number each. Where None, a U-Net gets values from 0 to
            255 as in the public code.
        scale: 255 where mean and std are of RGB from 0 to 255; see maskrt.export.bundles.normalisation.
        onnx: what only the exporter knows of an ONNX file, for both networks.
        classes: names in the order of the logits. Where None, one logit gives "background" and "foreground".
        patch_selection: settings that the bundle keeps.
        roi_expected: the models were trained on regions of interest, so that maskrt run advises to give them.
        overwrite: replace a bundle that is at `out`.
        report: called with one line per finished step.

    Raises:
        InputError: an option, a checkpoint or the place cannot be used, or the two do not belong together.
        ExportError: a graph, or the whole pipeline, differs from PyTorch.
    """
    patch_selection = patch_selection or PatchSelectionSpec()
    given = {"low": low, "high": high} | ({} if baseline is None else {BASELINE: baseline})
    kinds = {role: split_kind(spec, STAGES, f"{role} segmenter") for role, spec in given.items()}
    if (mean is None) != (std is None):
        raise InputError("mean and std belong together: give both, or neither")
    mean, std = of_unit("mean", mean, scale), of_unit("std", std, scale)
    if onnx != NO_OPTIONS and all(kind != "onnx" for kind, _ in kinds.values()):
        raise InputError("output, activation and bgr say what an ONNX file does: leave them out for a U-Net")
    if mean is None and any(kind == "onnx" for kind, _ in kinds.values()):
        raise InputError("say how the ONNX segmenters want their pictures: --mean R,G,B --std R,G,B, of RGB / 255")
    if not LEAST_SIDE <= size <= MAX_SIDE:
        raise InputError(f"size {size}: choose one from {LEAST_SIDE} to {MAX_SIDE} pixels")
    if size % patch_selection.patches:
        raise InputError(
            f"{patch_selection.patches} patches do not divide {size} pixels: choose another size or number"
        )
    sides = {"low": padded_size((-(-size // shrink),) * 2, 32)[0], "high": size // patch_selection.patches}
    sides[BASELINE] = padded_size((size, size), 32)[0]
    with whole_folder(out, overwrite=overwrite, ours=is_bundle) as folder:
        found = {
            role: STAGES[kind](checkpoint, folder / f"{role}.onnx", sides[role], onnx)
            for role, (kind, checkpoint) in kinds.items()
        }
        spec = spec_of(found, size, shrink, fit, mean, std, classes)
        patch_side(spec, patch_selection)
        manifest = TwoStageManifest(
            schema=SCHEMA,
            maskrt=maskrt_version(),
            precision="fp32",
            opset=OPSET,
            models={
                role: model_entry(folder / f"{role}.onnx", kind, checkpoint, found[role].write(report))
                for role, (kind, checkpoint) in kinds.items()
            },
            roi_expected=roi_expected,
            note=note,
            two_stage=spec,
            patch_selection=patch_selection,
        )
        (folder / MANIFEST).write_bytes(encode_manifest(manifest))
        check(open_bundle(folder), found, report)
    for line in fitness_lines({entry.file: entry.tensorrt for entry in manifest.models.values()}):
        report(line)
    report(f"{out}: {total_mb(manifest.models):.0f} MB, verified")
    return Bundle(Path(out), manifest)


def spec_of(
    found: dict[str, Stage],
    size: int,
    shrink: int,
    fit: Literal["square", "keep"],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    classes: tuple[str, ...] | None,
) -> TwoStageSpec:
    """Make the bundle's declaration of both networks.

    Raises:
        InputError: they take or return different things, or the options do not fit them.
    """
    low = found["low"]
    for role, other in found.items():
        if (low.channels, low.logits) != (other.channels, other.logits):
            raise InputError(
                f"low takes {low.channels} channels and returns {low.logits} logits, {role} {other.channels} and "
                f"{other.logits}: give two networks of one task"
            )
    count = max(2, low.logits)
    if classes is None:
        classes = (
            ("background", "foreground") if count == 2 else ("background", *(f"class_{i}" for i in range(1, count)))
        )
    if len(classes) != count:
        raise InputError(f"{len(classes)} class names given ({', '.join(classes)}); the networks have {count} classes")
    channels: Any = low.channels  # 1 or 3: the bundle is opened, and any other number refused, before it is kept
    try:
        return TwoStageSpec(
            size=size,
            mean=RAW_MEAN * low.channels if mean is None else mean,
            std=RAW_STD * low.channels if std is None else std,
            classes=classes,
            shrink=shrink,
            channels=channels,
            multiple=max(stage.multiple for stage in found.values()),
            fit=fit,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def check(bundle: Bundle, stages: dict[str, Stage], report: Report) -> None:
    """Run the pipeline on a random picture. Where both networks are PyTorch's, compare it with them on the grid.

    Raises:
        ExportError: a probability differs by more than TOLERANCE.
    """
    manifest = bundle.manifest
    assert isinstance(manifest, TwoStageManifest)
    rgb = np.random.default_rng(0).integers(0, 256, (211, 160, 3), np.uint8)
    with TwoStagePipeline(bundle) as pipeline:  # it must run with its own settings
        pipeline(rgb)
        if pipeline.baseline is not None:
            pipeline.baseline([rgb])
    low, high = stages["low"].network, stages["high"].network
    if low is None or high is None:
        return
    # The document has no sliding windows, and without windows `high` would not run.
    with TwoStagePipeline(with_settings(bundle, {"windows": "grid"})) as pipeline:
        found = pipeline(rgb).probability
    target = manifest.patch_selection.target
    expected = look_plainly(low, high, manifest.two_stage, manifest.patch_selection, rgb)[target]
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise ExportError(f"the two stages differ from PyTorch by {difference:.1e}: report this")
    report(f"two stages: differ from PyTorch by at most {difference:.1e} in probability")
