"""Export a segmenter and a SAM to a bundle for the SOSS pipeline."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.export.architectures.sam import SamConfig
from maskrt.export.bundles.entries import fitness_lines, is_bundle, maskrt_version, model_entry, total_mb
from maskrt.export.bundles.folder import whole_folder
from maskrt.export.bundles.normalisation import Scale
from maskrt.export.bundles.onnx_answer import NO_OPTIONS, OnnxOptions
from maskrt.export.bundles.refiner import read_crm, write_refiner
from maskrt.export.bundles.sams import WRITERS, read_sam
from maskrt.export.bundles.soss_segmenter import Triple, Wanted, write_segmenter
from maskrt.export.graph_tools.graph import OPSET, TOLERANCE
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle, open_bundle
from maskrt.runtime.bundle.manifest import SCHEMA, ModelEntry, SossManifest, encode_manifest
from maskrt.runtime.bundle.specs import MasksSpec, RefinementSpec, SamSpec, VotingSpec
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import ExportError, InputError
from maskrt.runtime.sam.mask_decoder import SPLIT_DECODER, MaskDecoder, SplitDecoder, WholeDecoder
from maskrt.runtime.sam.prompts import policy_of
from maskrt.runtime.types import Report

DECODERS = ("decoder", *SPLIT_DECODER)


def export_soss(
    segmenter: str,
    sam: str,
    out: Path,
    *,
    input_hw: tuple[int, int] | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    scale: Scale | None = None,
    onnx: OnnxOptions = NO_OPTIONS,
    classes: tuple[str, ...] | None = None,
    masks: MasksSpec | None = None,
    voting: VotingSpec | None = None,
    refiner: str | None = None,
    refinement: RefinementSpec | None = None,
    roi_expected: bool = False,
    note: str = "",
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> Bundle:
    """Export both networks, check them, and put the bundle at `out`. A failure or an interruption leaves nothing.

    Args:
        segmenter: KIND:FILE with a KIND of maskrt.export.bundles.segmenters.SEGMENTERS, or two-stage:BUNDLE for the two
            networks of a two-stage bundle with its settings.
        sam: vit_b:FILE, vit_l:FILE, vit_h:FILE, or custom:FILE with the sizes in FILE's .json.
        input_hw: height and width of the segmenter's input in pixels; where None those that an ONNX file is fixed to,
            or 512 x 512.
        mean, std: of RGB / 255 that the segmenter was trained with; ImageNet's where None. Two stages have their own.
        scale: 255 where mean and std are of RGB from 0 to 255; see maskrt.export.bundles.normalisation.
        onnx: what only the exporter knows of an ONNX segmenter.
        classes: names in the order of the logits; "background", "class_1" and so on where None. One name alone is that
            of the second of two classes.
        refiner: resnet50:FILE or custom:FILE of maskrt.export.bundles.refiner; `refinement` says whether the answer is
            refined.
        roi_expected: the models were trained on regions of interest, so that maskrt run advises to give them.
        overwrite: replace a bundle that is at `out`.
        report: called with one line per finished step.

    Returns:
        The bundle at `out`, verified.

    Raises:
        InputError: an option, a checkpoint or the place cannot be used.
        ExportError: an exported graph differs from PyTorch.
    """
    masks, voting = masks or MasksSpec(), voting or VotingSpec()
    policy_of(masks.prompts)  # refused now, not when the bundle is opened

    def accept(names: Sequence[str]) -> None:
        if not 0 <= voting.target < len(names):
            raise InputError(f"voting target {voting.target} is not one of {len(names)} classes: {', '.join(names)}")

    with whole_folder(out, overwrite=overwrite, ours=is_bundle) as folder:
        # Every checkpoint is read before the first graph is made, which takes minutes: what cannot be used fails now.
        read_sam(sam)
        if refiner is not None:
            read_crm(refiner)
        wanted = Wanted(input_hw, mean, std, scale, onnx)
        half = write_segmenter(segmenter, folder, wanted, classes, report, accept)
        entries, config = _export_sam(folder, sam, report)
        refiner_entries, refiner_spec = ({}, None) if refiner is None else write_refiner(refiner, folder, report)
        manifest = SossManifest(
            schema=SCHEMA,
            maskrt=maskrt_version(),
            precision="fp32",
            opset=OPSET,
            models=half.models | entries | refiner_entries,
            segmenter=half.segmenter,
            sam=SamSpec(config.image_size, (config.low_res_size, config.low_res_size)),
            masks=masks,
            voting=voting,
            refiner=refiner_spec,
            refinement=refinement or RefinementSpec(select="off"),
            two_stage=half.two_stage,
            patch_selection=half.patch_selection,
            roi_expected=roi_expected,
            note=note,
        )
        (folder / MANIFEST).write_bytes(encode_manifest(manifest))
        _verify(open_bundle(folder), config.embedding_shape)
    for line in fitness_lines({entry.file: entry.tensorrt for entry in manifest.models.values()}):
        report(line)
    report(f"{out}: {total_mb(manifest.models):.0f} MB, verified")
    return Bundle(Path(out), manifest)


def _export_sam(folder: Path, spec: str, report: Report) -> tuple[dict[str, ModelEntry], SamConfig]:
    # A function of its own so that the network, 2.5 GB for ViT-H, is freed before the bundle is verified.
    network, config = read_sam(spec, report)
    kind, _, file = spec.partition(":")
    entries = {}
    for role, write in WRITERS.items():
        path = folder / f"{role}.onnx"
        parity = write(network, config, path, report)
        entries[role] = model_entry(path, kind, Path(file), parity)
    return entries, config


def _verify(bundle: Bundle, embedding_shape: tuple[int, ...]) -> None:
    """Run every graph as the pipeline does, a few at a time, so that the memory of ViT-H does not add up."""
    manifest = bundle.expect(SossManifest)
    size, input_hw = manifest.sam.image_size, manifest.segmenter.input_hw
    feeds: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
        "segmenter": (np.zeros((1, 3, *input_hw), np.float32), (1, len(manifest.classes), *input_hw)),
        "encoder": (np.zeros((1, size, size, 3), np.uint8), embedding_shape),
    }
    if manifest.two_stage is not None:  # its graphs were run when their own bundle was made
        del feeds["segmenter"]
    for role, (feed, expected) in feeds.items():
        with open_session(bundle.model_path(role)) as session:
            (answer,) = session.run({next(iter(session.inputs)): feed}).values()
        if answer.shape != expected:
            raise ExportError(f"the {role} returns {answer.shape}, the bundle would declare {expected}: report this")
    random = np.random.default_rng(0)
    embeddings = random.standard_normal(embedding_shape, np.float32)
    coords = random.uniform(0, size, (3, 2, 2)).astype(np.float32)
    labels = np.tile(np.array([1, -1], np.float32), (3, 1))
    with ExitStack() as stack:
        sessions = {role: stack.enter_context(open_session(bundle.model_path(role))) for role in DECODERS}
        whole = WholeDecoder(sessions["decoder"], manifest.sam)
        image_side, token_side, upscale = (sessions[role] for role in SPLIT_DECODER)
        split = SplitDecoder(image_side, token_side, upscale, manifest.sam)
        parts, one = (_decode(decoder, embeddings, coords, labels) for decoder in (split, whole))
    for name, ours, theirs in zip(("pred_iou", "low_res_masks"), parts, one, strict=True):
        difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the decoder's three graphs differ from the one by {difference:.1e} in {name}: report this"
            )


def _decode(
    decoder: MaskDecoder, embeddings: NDArray[np.float32], coords: NDArray[np.float32], labels: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return pred_iou [B, 3] and every low-res mask [3 * B, l, l]."""
    image = decoder.prepare(embeddings)
    prompted = decoder.prompt(image, coords, labels)
    _, masks = decoder.masks(image, prompted, np.ones(prompted.pred_iou.shape, np.bool_))
    return prompted.pred_iou, masks
