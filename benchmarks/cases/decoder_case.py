"""The case `decoder`: predicted IoUs of every prompt of the grid, and the low-res masks that pass the gate.

Peers: the decoder exported as one graph with a batched prompt axis, in ONNX Runtime; and segment_anything's own in
PyTorch. Both draw all masks: they cannot gate. The one graph is ours, and already a little better than a plain export
of segment_anything's code: its first layer projects the image once instead of once per prompt. It could take masks as
prompts; here it gets none.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrt.benchmarks.cases.logits import Prompts, write_prompts
from maskrt.benchmarks.cases.soss_models import Models, chosen_models
from maskrt.benchmarks.harness.assemble import assemble, measure_sizes
from maskrt.benchmarks.harness.measure import Factory
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, EqualityCounts, equality_counts
from maskrt.kernels.arrays import Floats
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.evaluation.equality import Equality
from maskrt.runtime.sam.mask_decoder import MASKS_PER_POINT, no_mask
from maskrt.runtime.types import Report

OURS, ONE_GRAPH, PYTORCH = "maskrt", "onnxruntime_official", "pytorch_eager"
BATCH = 64  # upstream's points_per_batch
TOLERANCE = 1e-4  # of the largest logit
NEEDS = ("torch", "segment_anything", "onnx", "onnxscript", "safetensors", "cv2", "onnxruntime")

Found = tuple[Floats, Floats]  # pred_iou [N, 3], and every 50th prompt's masks that pass
KEPT_EVERY = 50


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure the requested sizes; raise the errors of the case `soss`."""
    prepared = chosen_models(options, report, NEEDS)

    def contestants(models: Models, folder: Path) -> dict[str, Factory]:
        prompts = write_prompts(models, options, folder)
        return {OURS: OurDecoder(prompts), ONE_GRAPH: OneGraph(prompts), PYTORCH: PytorchDecoder(prompts)}

    measured = measure_sizes(prepared, options, report, contestants)
    equality = {size: compare(result.values[OURS], result.values[PYTORCH]) for size, result in measured.items()}
    passing = {
        size: float((result.values[PYTORCH][0] > _gate(models.bundle)).mean())
        for (size, result), models in zip(measured.items(), prepared.values(), strict=True)
    }
    notes = [
        f"{size}: {passing[size]:.0%} of the masks pass the gate; {models.note}" for size, models in prepared.items()
    ]
    notes.append(f"equality counts low-res masks, of every {KEPT_EVERY}th prompt, within {TOLERANCE:g} of PyTorch's")
    return assemble("decoder", options, measured, equality, notes)


@dataclass(frozen=True)
class OurDecoder:
    """The three graphs as runtime/sam/candidates.py runs them."""

    prompts: Prompts

    def __call__(self) -> Callable[[], tuple[dict[str, float], Found]]:
        """Load the graphs."""
        from maskrt.runtime.bundle.bundle import open_bundle
        from maskrt.runtime.engines.loading import Sessions
        from maskrt.runtime.sam.mask_decoder import open_decoder

        workers, bundle = self.prompts.threads, open_bundle(self.prompts.bundle)
        # The sessions stay open as long as the worker lives.
        decoder = open_decoder(Sessions(bundle, threads=workers), bundle.expect(SossManifest).sam)
        values = np.load(self.prompts.file)
        embeddings, coords, labels = values["embeddings"], values["coords"], values["labels"]
        gate, step = np.float32(self.prompts.masks.pred_iou_thresh), decoder.batch or BATCH

        def iterate() -> tuple[dict[str, float], Found]:
            image = decoder.prepare(embeddings)

            def decode(first: int) -> Found:
                batch = slice(first, first + step)
                prompted = decoder.prompt(image, coords[batch], labels[batch])
                indices, masks = decoder.masks(image, prompted, prompted.pred_iou > gate)
                return prompted.pred_iou, masks[(first + indices // MASKS_PER_POINT) % KEPT_EVERY == 0]

            with ThreadPoolExecutor(workers) as pool:
                found = list(pool.map(decode, range(0, len(coords), step)))
            return {}, (np.concatenate([iou for iou, _ in found]), np.concatenate([masks for _, masks in found]))

        return iterate


@dataclass(frozen=True)
class OneGraph:
    """decoder.onnx in batches."""

    prompts: Prompts

    def __call__(self) -> Callable[[], tuple[dict[str, float], Found]]:
        """Load the graph."""
        from maskrt.runtime.bundle.bundle import open_bundle
        from maskrt.runtime.engines.providers import open_session

        bundle = open_bundle(self.prompts.bundle)
        session = open_session(bundle.model_path("decoder"), threads=self.prompts.threads, repeated=True)
        values, mask = dict(np.load(self.prompts.file)), no_mask(bundle.expect(SossManifest).sam.low_res_hw)

        def decode(batch: slice) -> Found:
            feeds = {"point_coords": values["coords"][batch], "point_labels": values["labels"][batch]}
            found = session.run({"image_embeddings": values["embeddings"], **feeds, **mask}, check=("pred_iou",))
            return found["pred_iou"], found["low_res_masks"]

        return _in_batches(decode, len(values["coords"]), self.prompts)


@dataclass(frozen=True)
class PytorchDecoder:
    """segment_anything's prompt encoder and mask decoder."""

    prompts: Prompts

    def __call__(self) -> Callable[[], tuple[dict[str, float], Found]]:
        """Load the checkpoint."""
        import torch

        from maskrt.export.bundles.sams import read_sam

        torch.set_num_threads(self.prompts.threads)
        sam, _ = read_sam(self.prompts.sam)
        values = np.load(self.prompts.file)
        embeddings, points = torch.from_numpy(values["embeddings"]), torch.from_numpy(values["coords"])[:, :1]
        place = sam.prompt_encoder.get_dense_pe()

        @torch.inference_mode()
        def decode(batch: slice) -> Found:
            chosen = points[batch]
            sparse, dense = sam.prompt_encoder((chosen, torch.ones(len(chosen), 1)), None, None)
            low_res, pred_iou = sam.mask_decoder(embeddings, place, sparse, dense, True)
            return pred_iou.numpy(), low_res.numpy()

        return _in_batches(decode, len(points), self.prompts)


def _in_batches(
    decode: Callable[[slice], Found], count: int, prompts: Prompts
) -> Callable[[], tuple[dict[str, float], Found]]:
    gate = np.float32(prompts.masks.pred_iou_thresh)

    def iterate() -> tuple[dict[str, float], Found]:
        ious, kept = [], []
        for first in range(0, count, BATCH):
            pred_iou, low_res = decode(slice(first, first + BATCH))
            ious.append(pred_iou)
            chosen = np.arange(first, first + len(pred_iou)) % KEPT_EVERY == 0
            kept.append(low_res[chosen][pred_iou[chosen] > gate])
        return {}, (np.concatenate(ious), np.concatenate(kept))

    return iterate


def _gate(bundle: Path) -> np.float32:
    from maskrt.runtime.bundle.bundle import open_bundle

    return np.float32(open_bundle(bundle).expect(SossManifest).masks.pred_iou_thresh)


def compare(ours: Found, pytorch: Found) -> EqualityCounts:
    """Count low-res masks within TOLERANCE of the largest logit. Where the numbers of masks differ, all differ."""
    difference = float(np.abs(ours[0] - pytorch[0]).max())
    masks = max(len(ours[1]), len(pytorch[1]))
    same = 0
    if len(ours[1]) == len(pytorch[1]):
        limit = TOLERANCE * np.abs(pytorch[1]).max(initial=0)
        same = int((np.abs(ours[1] - pytorch[1]).max(axis=(1, 2), initial=0) <= limit).sum())
    return equality_counts(Equality(masks, same, 0, masks - same, True, difference), 0)
