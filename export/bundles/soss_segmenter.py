"""The segmenter's half of a SOSS bundle: one network, or the two of a two-stage bundle."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from maskrt.export.architectures.kinds import split_kind
from maskrt.export.bundles.entries import model_entry
from maskrt.export.bundles.given_onnx import declared_hw
from maskrt.export.bundles.normalisation import Scale, of_unit
from maskrt.export.bundles.onnx_answer import NO_OPTIONS, OnnxOptions
from maskrt.export.bundles.segmenters import NAMES, ONNX, writer_of
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import ModelEntry, TwoStageManifest
from maskrt.runtime.bundle.specs import SegmenterSpec
from maskrt.runtime.bundle.two_stage_spec import BASELINE, PatchSelectionSpec, TwoStageSpec
from maskrt.runtime.errors import InputError
from maskrt.runtime.types import Report

Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
INPUT_HW = (512, 512)
TWO_STAGE = "two-stage"  # a kind whose FILE is a bundle
KINDS = (*NAMES, TWO_STAGE)


class Wanted(NamedTuple):
    """How a segmenter wants its input, see SegmenterSpec, and the names of its classes. None is the usual value.

    scale: what mean and std are of, see of_unit. onnx: what only the exporter knows of an ONNX file.
    """

    input_hw: tuple[int, int] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    scale: Scale | None = None
    onnx: OnnxOptions = NO_OPTIONS


class Half(NamedTuple):
    """The segmenter's part of the manifest. two_stage: where the segmenter has two stages."""

    models: dict[str, ModelEntry]
    segmenter: SegmenterSpec
    two_stage: TwoStageSpec | None = None
    patch_selection: PatchSelectionSpec = PatchSelectionSpec()


def write_segmenter(
    segmenter: str,
    folder: Path,
    wanted: Wanted,
    classes: Sequence[str] | None,
    report: Report,
    accept: Callable[[Sequence[str]], None] = lambda _: None,
) -> Half:
    """Write the segmenter's graphs into a folder.

    Args:
        segmenter: KIND:FILE with a KIND of maskrt.export.bundles.segmenters.SEGMENTERS, smp:ARCH/ENCODER:FILE, or
            two-stage:BUNDLE.
        accept: gets the classes' names before a graph is made, and raises where they do not do.

    Raises:
        InputError: an option or a checkpoint cannot be used.
        ExportError: a graph differs from PyTorch.
    """
    kind, checkpoint = split_kind(segmenter, dict.fromkeys(KINDS), "segmenter")
    if kind == TWO_STAGE:
        half = _take_stages(checkpoint, folder, wanted, classes, report)
        accept(half.segmenter.classes)
        return half
    mean, std = (_triple(of_unit(name, getattr(wanted, name), wanted.scale)) for name in ("mean", "std"))
    input_hw = wanted.input_hw or (declared_hw(checkpoint) if kind == ONNX else None) or INPUT_HW
    path = folder / "segmenter.onnx"
    count, parity = writer_of(kind)(
        checkpoint,
        path,
        input_hw,
        report,
        options=wanted.onnx,
        accept=lambda count: accept(_class_names(_with_background(classes, count), count)),
    )
    spec = SegmenterSpec(
        input_hw, mean or IMAGENET_MEAN, std or IMAGENET_STD, _class_names(_with_background(classes, count), count)
    )
    return Half({"segmenter": model_entry(path, kind, checkpoint, parity)}, spec)


def _triple(numbers: tuple[float, ...] | None) -> Triple | None:
    if numbers is None:
        return None
    red, green, blue = numbers
    return red, green, blue


def _take_stages(source: Path, folder: Path, wanted: Wanted, classes: Sequence[str] | None, report: Report) -> Half:
    """Take the two networks of a verified bundle as they are."""
    if wanted != Wanted():
        raise InputError(f"input size, mean, std and the options of ONNX files are those of {source}: leave them out")
    bundle = open_bundle(source)
    manifest = bundle.expect(TwoStageManifest)
    models = {}
    for role, entry in manifest.models.items():
        if role == BASELINE:  # for evaluations of the two stages alone
            continue
        if entry.data:
            raise InputError(f"{source}: {entry.file} keeps its weights in another file: too large for a SOSS bundle")
        file = f"segmenter_{role}.onnx"
        shutil.copyfile(bundle.model_path(role), folder / file)
        models[f"segmenter_{role}"] = msgspec.structs.replace(entry, file=file)
        report(f"{file}: {entry.file} of {source.name} as it is")
    spec = manifest.two_stage
    if classes is not None:
        spec = msgspec.structs.replace(spec, classes=_class_names(classes, len(spec.classes)))
    # SOSS reads only the segmenter's classes; two_stage says how the two networks want their input.
    red, green, blue = (spec.mean * 3)[:3]
    red_std, green_std, blue_std = (spec.std * 3)[:3]
    segmenter = SegmenterSpec((spec.size, spec.size), (red, green, blue), (red_std, green_std, blue_std), spec.classes)
    return Half(models, segmenter, spec, manifest.patch_selection)


def _with_background(classes: Sequence[str] | None, count: int) -> Sequence[str] | None:
    """Return the names of two classes where the second's alone was given."""
    return ("background", *classes) if classes is not None and (len(classes), count) == (1, 2) else classes


def _class_names(classes: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if classes is None:
        return ("background", *(f"class_{index}" for index in range(1, count)))
    if len(classes) != count:
        raise InputError(f"{len(classes)} class names given ({', '.join(classes)}); the segmenter has {count} classes")
    return tuple(classes)
