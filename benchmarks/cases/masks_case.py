"""The case `masks`: from low-res logits to boxes and run lengths of the confident, stable masks.

The peer does what SamAutomaticMaskGenerator does, in PyTorch: Sam.postprocess_masks on every mask, then the two
gates, batched_mask_to_box and mask_to_rle_pytorch.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.cases.logits import write_low_res, write_prompts
from maskrt.benchmarks.cases.soss_models import Models, chosen_models
from maskrt.benchmarks.harness.assemble import assemble, measure_sizes
from maskrt.benchmarks.harness.measure import Factory
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, EqualityCounts, equality_counts
from maskrt.kernels.low_res import Placement
from maskrt.runtime.bundle.specs import MasksSpec
from maskrt.runtime.evaluation.equality import Equality, differing_pixels, tie_limit
from maskrt.runtime.rle import Rle, decode_rle, rle_area
from maskrt.runtime.sam.mask_decoder import SplitDecoder
from maskrt.runtime.types import Report

OURS, PEER = "maskrt", "pytorch_upstream"
PROMPTS = 64  # upstream's points_per_batch: it holds all their masks at full size at once
NEEDS = ("torch", "segment_anything", "onnx", "onnxscript", "safetensors", "cv2", "onnxruntime")
Found = list[tuple[list[int], Rle]]  # box x0 y0 x1 y1, runs


@dataclass(frozen=True)
class Work:
    """The input of both sides. low_res: the file of maskrt.benchmarks.cases.logits.write_low_res."""

    low_res: Path
    placement: Placement
    masks: MasksSpec
    threads: int


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure the requested sizes; raise the errors of the case `soss`."""
    prepared = chosen_models(options, report, NEEDS)

    def contestants(models: Models, folder: Path) -> dict[str, Factory]:
        prompts = write_prompts(models, options, folder)
        work = Work(write_low_res(prompts, folder, PROMPTS), prompts.placement, prompts.masks, prompts.threads)
        return {OURS: OurMasks(work), PEER: UpstreamMasks(work)}

    measured = measure_sizes(prepared, options, report, contestants)
    equality = {size: compare(result.values[OURS], result.values[PEER]) for size, result in measured.items()}
    notes = [f"{PROMPTS} prompts of the grid, three masks each", *(models.note for models in prepared.values())]
    return assemble("masks", options, measured, equality, notes)


@dataclass(frozen=True)
class OurMasks:
    """The runtime's own functions, on batches in parallel as its CandidateFinder calls them."""

    work: Work

    def __call__(self) -> Callable[[], tuple[dict[str, float], Found]]:
        """Load the logits and compile."""
        from maskrt.kernels import sets
        from maskrt.runtime.sam.candidates import draw_rle, stable_candidates

        values = np.load(self.work.low_res)
        low_res, pred_iou = values["low_res"], values["pred_iou"]
        spec, placement, kernels = self.work.masks, self.work.placement, sets.CPU
        step = SplitDecoder.batch or PROMPTS

        def measure(first: int) -> Found:
            passing = pred_iou[first : first + step] > np.float32(spec.pred_iou_thresh)
            masks, scores = low_res[first : first + step][passing], pred_iou[first : first + step][passing]
            no_points = np.zeros((len(masks), 2))
            found = stable_candidates(masks, no_points, scores, placement, 0.0, spec, kernels)
            return [(c.box_xyxy.tolist(), draw_rle(c, low_res.shape[-1], placement, 0.0, kernels)) for c in found]

        def iterate() -> tuple[dict[str, float], Found]:
            with ThreadPoolExecutor(self.work.threads) as pool:
                return {}, [mask for found in pool.map(measure, range(0, len(low_res), step)) for mask in found]

        return iterate


@dataclass(frozen=True)
class UpstreamMasks:
    """segment_anything's own functions, in the order in which its generator calls them."""

    work: Work

    def __call__(self) -> Callable[[], tuple[dict[str, float], Found]]:
        """Load the logits."""
        import torch
        from torch.nn import functional

        from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins

        with torchvision_or_stand_ins():
            from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score, mask_to_rle_pytorch
        torch.set_num_threads(self.work.threads)
        values = np.load(self.work.low_res)
        low_res, pred_iou = torch.from_numpy(values["low_res"]), torch.from_numpy(values["pred_iou"])
        spec, placement = self.work.masks, self.work.placement
        (height, width), square = placement.input_hw, (placement.square, placement.square)

        @torch.inference_mode()
        def iterate() -> tuple[dict[str, float], Found]:
            masks = functional.interpolate(low_res, square, mode="bilinear", align_corners=False)
            masks = masks[..., :height, :width]
            masks = functional.interpolate(masks, placement.size_hw, mode="bilinear", align_corners=False)
            masks = masks.flatten(0, 1)[pred_iou.flatten() > spec.pred_iou_thresh]
            stability = calculate_stability_score(masks, 0.0, spec.stability_score_offset)
            masks = masks[stability >= spec.stability_score_thresh] > 0.0
            boxes = batched_mask_to_box(masks).tolist()
            return {}, list(zip(boxes, mask_to_rle_pytorch(masks), strict=True))

        return iterate


def compare(ours: Found, upstream: Found) -> EqualityCounts:
    """Compare masks in the order of the prompts. A mask that only one side has is a difference."""
    identical = ties = 0
    if len(ours) == len(upstream):
        for (box, rle), (other_box, other) in zip(ours, upstream, strict=True):
            if rle["counts"] == other["counts"]:
                identical += box == other_box
            else:
                ties += differing_pixels(rle, _dense(other)) <= tie_limit(rle_area(other))
    masks = max(len(ours), len(upstream))
    equality = Equality(masks, identical, ties, masks - identical - ties, len(ours) == len(upstream), 0.0)
    return equality_counts(equality, 0)


def _dense(rle: Any) -> NDArray[np.bool_]:
    return decode_rle({"size": list(rle["size"]), "counts": list(rle["counts"])})
