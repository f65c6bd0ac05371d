"""The segmenter's half of a SOSS bundle: one network, or the two of a two-stage bundle."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from maskrt.export.architectures.kinds import split_kind
from maskrt.export.bundles.entries import model_entry
from maskrt.export.bundles.segmenters import SEGMENTERS
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
KINDS = (*SEGMENTERS, TWO_STAGE)


class Normalisation(NamedTuple):
    """How a segmenter wants its input; see SegmenterSpec. None is the usual value."""

    input_hw: tuple[int, int] | None = None
    mean: Triple | None = None
    std: Triple | None = None


class Half(NamedTuple):
    """The segmenter's part of the manifest. two_stage: where the segmenter has two stages."""

    models: dict[str, ModelEntry]
    segmenter: SegmenterSpec
    two_stage: TwoStageSpec | None = None
    patch_selection: PatchSelectionSpec = PatchSelectionSpec()


def write_segmenter(
    segmenter: str, folder: Path, wanted: Normalisation, classes: Sequence[str] | None, report: Report
) -> Half:
    """Write the segmenter's graphs into a folder.

    Args:
        segmenter: KIND:FILE with a KIND of maskrt.export.bundles.segmenters.SEGMENTERS, or two-stage:BUNDLE.

    Raises:
        InputError: an option or a checkpoint cannot be used.
        ExportError: a graph differs from PyTorch.
    """
    kind, checkpoint = split_kind(segmenter, dict.fromkeys(KINDS), "segmenter")
    if kind == TWO_STAGE:
        return _take_stages(checkpoint, folder, wanted, classes, report)
    std = wanted.std or IMAGENET_STD
    if min(std) <= 0:
        raise InputError(f"std {std}: give numbers above 0")
    input_hw = wanted.input_hw or INPUT_HW
    path = folder / "segmenter.onnx"
    count, parity = SEGMENTERS[kind](checkpoint, path, input_hw, report)
    spec = SegmenterSpec(input_hw, wanted.mean or IMAGENET_MEAN, std, _class_names(classes, count))
    return Half({"segmenter": model_entry(path, kind, checkpoint, parity)}, spec)


def _take_stages(
    source: Path, folder: Path, wanted: Normalisation, classes: Sequence[str] | None, report: Report
) -> Half:
    """Take the two networks of a verified bundle as they are."""
    if wanted != Normalisation():
        raise InputError(f"input size, mean and std are those of {source}: leave them out")
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


def _class_names(classes: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if classes is None:
        return ("background", *(f"class_{index}" for index in range(1, count)))
    if len(classes) != count:
        raise InputError(f"{len(classes)} class names given ({', '.join(classes)}); the segmenter has {count} classes")
    return tuple(classes)
