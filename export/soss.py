"""A segmenter and a SAM to a bundle for the SOSS pipeline."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.export.folder import whole_folder
from maskrt.export.graph import OPSET, Report, data_file
from maskrt.export.kinds import split_kind
from maskrt.export.sam import SamConfig
from maskrt.export.sams import read_sam, write_decoder, write_encoder
from maskrt.export.segmenters import SEGMENTERS
from maskrt.runtime.bundle import (
    MANIFEST,
    SCHEMA,
    Bundle,
    DataFile,
    Manifest,
    MasksSpec,
    ModelEntry,
    Parity,
    SamSpec,
    SegmenterSpec,
    VotingSpec,
    encode_manifest,
    open_bundle,
    sha256_of,
)
from maskrt.runtime.errors import ExportError, InputError
from maskrt.runtime.session import open_session

Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
ROLES = ("segmenter", "encoder", "decoder")


def export_soss(
    segmenter: str,
    sam: str,
    out: Path,
    *,
    input_hw: tuple[int, int] = (512, 512),
    mean: Triple = IMAGENET_MEAN,
    std: Triple = IMAGENET_STD,
    classes: tuple[str, ...] | None = None,
    masks: MasksSpec | None = None,
    voting: VotingSpec | None = None,
    note: str = "",
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> Bundle:
    """Export both networks, check them, and put the bundle at `out`. Whatever fails or is interrupted leaves nothing.

    Args:
        segmenter: KIND:FILE with a KIND of maskrt.export.segmenters.SEGMENTERS.
        sam: vit_b:FILE, vit_l:FILE, vit_h:FILE, or custom:FILE with the sizes in FILE's .json.
        input_hw: height and width of the segmenter's input in pixels.
        mean, std: of RGB / 255 that the segmenter was trained with.
        classes: names in the order of the logits; "background", "class_1" and so on where None.
        overwrite: replace a bundle that is at `out`.
        report: called with one line per finished step.

    Returns:
        The bundle at `out`, verified.

    Raises:
        InputError: an option, a checkpoint or the place cannot be used.
        ExportError: an exported graph differs from PyTorch.
    """
    masks, voting = masks or MasksSpec(), voting or VotingSpec()
    kind, checkpoint = split_kind(segmenter, SEGMENTERS, "segmenter")
    if min(std) <= 0:
        raise InputError(f"std {std} must be positive")
    with whole_folder(out, overwrite=overwrite, ours=_is_bundle) as folder:
        count, parity = SEGMENTERS[kind](checkpoint, folder / "segmenter.onnx", input_hw, report)
        names = _class_names(classes, count)
        if not 0 <= voting.target < count:
            raise InputError(f"voting target {voting.target} is not one of {count} classes: {', '.join(names)}")
        models = {"segmenter": _entry(folder / "segmenter.onnx", kind, checkpoint, parity)}
        entries, config = _export_sam(folder, sam, report)
        manifest = Manifest(
            schema=SCHEMA,
            kind="soss",
            maskrt=_version(),
            precision="fp32",
            opset=OPSET,
            models=models | entries,
            segmenter=SegmenterSpec(input_hw, mean, std, names),
            sam=SamSpec(config.image_size, (config.low_res_size, config.low_res_size)),
            masks=masks,
            voting=voting,
            note=note,
        )
        (folder / MANIFEST).write_bytes(encode_manifest(manifest))
        _verify(open_bundle(folder), config.embedding_shape)
    bytes_total = sum(entry.size_bytes + sum(d.size_bytes for d in entry.data) for entry in manifest.models.values())
    report(f"{out}: {bytes_total / 1e6:.0f} MB, verified")
    return Bundle(Path(out), manifest)


def _export_sam(folder: Path, spec: str, report: Report) -> tuple[dict[str, ModelEntry], SamConfig]:
    # A function of its own so that the network, 2.5 GB for ViT-H, is freed before the bundle is verified.
    network, config = read_sam(spec)
    kind, _, file = spec.partition(":")
    writers: dict[str, Callable[[Path], Parity]] = {
        "encoder": partial(write_encoder, network, config, report=report),
        "decoder": partial(write_decoder, network, config, report=report),
    }
    entries = {}
    for role, write in writers.items():
        path = folder / f"{role}.onnx"
        parity = write(path)
        entries[role] = _entry(path, kind, Path(file), parity)
    return entries, config


def _entry(path: Path, kind: str, checkpoint: Path, parity: Parity | None) -> ModelEntry:
    data = data_file(path)
    return ModelEntry(
        file=path.name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        source=f"{kind}:{checkpoint.name}",  # the name only: a bundle travels, the exporting machine's paths do not
        source_sha256=sha256_of(checkpoint),
        parity=parity,
        data=(DataFile(data.name, sha256_of(data), data.stat().st_size),) if data.exists() else (),
    )


def _class_names(classes: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    if classes is None:
        return ("background", *(f"class_{index}" for index in range(1, count)))
    if len(classes) != count:
        raise InputError(f"{len(classes)} class names given ({', '.join(classes)}); the segmenter has {count} classes")
    return classes


def _verify(bundle: Bundle, embedding_shape: tuple[int, ...]) -> None:
    """Run every graph once as the pipeline will; one session at a time, so that ViT-H does not add up."""
    manifest = bundle.manifest
    size = manifest.sam.image_size
    feeds: dict[str, tuple[NDArray[Any], ...]] = {
        "segmenter": (np.zeros((1, 3, *manifest.segmenter.input_hw), np.float32),),
        "encoder": (np.zeros((size, size, 3), np.uint8),),
        "decoder": (
            np.zeros(embedding_shape, np.float32),
            np.zeros((2, 2, 2), np.float32),
            np.array([[1, -1], [1, -1]], np.float32),
        ),
    }
    expected = {
        "segmenter": [(1, len(manifest.segmenter.classes), *manifest.segmenter.input_hw)],
        "encoder": [embedding_shape],
        "decoder": [(2, 3, *manifest.sam.low_res_hw), (2, 3)],
    }
    for role in ROLES:
        with open_session(bundle.model_path(role)) as session:
            outputs = session.run(dict(zip(session.inputs, feeds[role], strict=True)))
        found = [value.shape for value in outputs.values()]
        if found != expected[role]:
            raise ExportError(f"the {role} returns {found}, the bundle would declare {expected[role]}")


def _is_bundle(path: Path) -> bool:
    return path.is_dir() and (path / MANIFEST).is_file()


def _version() -> str:
    from maskrt import __version__  # here, so that the root package can import this one

    return __version__
