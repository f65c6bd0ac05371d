"""Finds the masks that pass both gates, on low-res logits alone: no mask is drawn at full size yet."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats
from maskrt.kernels.low_res import Placement, Window, window_of
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.batching import in_halves
from maskrt.runtime.bundle.specs import MasksSpec, SamSpec
from maskrt.runtime.engines.device_tensor import Tensor
from maskrt.runtime.rle import Rle
from maskrt.runtime.sam.mask_decoder import MASKS_PER_POINT, MaskDecoder, Tensors
from maskrt.runtime.timing import timed

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A mask that passed both gates: its box at full size, and the low-res values inside it."""

    window: Window
    box_xyxy: NDArray[np.int32]
    point_xy: Points
    pred_iou: np.float32
    stability_score: np.float32


def stable_candidates(
    low_res: Floats,
    points_xy: Points,
    pred_iou: Floats,
    placement: Placement,
    mask_threshold: float,
    spec: MasksSpec,
    kernels: KernelSet,
) -> list[Candidate]:
    """Return those of N low-res masks that are stable.

    Args:
        low_res: float32 [N, l, l], C-contiguous.
        points_xy, pred_iou: [N, 2] and [N], the prompt point and predicted IoU of each mask.
        placement: where all these masks lie in the picture.
        mask_threshold: the logit above which a pixel belongs to the mask.
    """
    offset, min_stability = spec.stability_score_offset, spec.stability_score_thresh
    thresholds = np.array([mask_threshold - offset, mask_threshold, mask_threshold + offset], np.float32)
    stability = np.empty(len(low_res), np.float32)
    boxes = np.empty((len(low_res), 4), np.int32)
    kernels.measure_masks(low_res, placement, thresholds, min_stability, stability, boxes)
    # A mask without any pixel has the score NaN, which passes no gate but the open one.
    stable = (min_stability <= 0) | (stability >= np.float32(min_stability))
    return [
        Candidate(window_of(low_res[i], placement, boxes[i]), boxes[i], points_xy[i], pred_iou[i], stability[i])
        for i in np.flatnonzero(stable)
    ]


def draw_rle(candidate: Candidate, side: int, placement: Placement, mask_threshold: float, kernels: KernelSet) -> Rle:
    """Return the run lengths of a candidate at full size; `side` is the side of the low-res mask."""
    counts = kernels.mask_counts(candidate.window, side, placement, mask_threshold, candidate.box_xyxy)
    return {"size": list(placement.size_hw), "counts": counts.tolist()}


class CandidateFinder:
    """Prompts the decoder with points; several batches run at once where that makes the decoder faster."""

    def __init__(self, decoder: MaskDecoder, sam: SamSpec, spec: MasksSpec, kernels: KernelSet) -> None:
        self._decoder = decoder
        self._sam = sam
        self._spec = spec
        self._kernels = kernels

    def prepare(self, embeddings: Tensor) -> Tensors:
        """Return the tensors that all prompts of one image share."""
        return self._decoder.prepare(embeddings)

    def find(
        self, image: Tensors, points_xy: Points, placement: Placement, timings_ms: dict[str, float]
    ) -> list[Candidate]:
        """Return the confident and stable masks of N prompts, in the order of the prompts.

        Args:
            image: from `prepare`.
            points_xy: float64 [N, 2], in pixels at full size.
            timings_ms: gets "decoder" and "masks" added; where threads run side by side, the mean over the threads.

        Raises:
            NetworkError: the decoder returned NaN, infinity, or a shape that the bundle does not declare.
            OutOfMemory: half a batch did not fit either.
        """
        step = min(self._spec.points_per_batch, self._decoder.batch or self._spec.points_per_batch)
        batches = [points_xy[first : first + step] for first in range(0, len(points_xy), step)]
        workers = self._decoder.workers
        with ThreadPoolExecutor(workers) as pool:
            halves = pool.map(lambda xy: in_halves(lambda part: self._batch(image, part, placement), xy), batches)
            results = [result for both in halves for result in both]
        for _, elapsed_ms in results:
            for stage, value in elapsed_ms.items():
                timings_ms[stage] = timings_ms.get(stage, 0.0) + value / workers
        return [candidate for candidates, _ in results for candidate in candidates]

    def _batch(
        self, image: Tensors, points_xy: Points, placement: Placement
    ) -> tuple[list[Candidate], dict[str, float]]:
        """Return the candidates of one batch of prompts, and the milliseconds of its stages; runs in its own thread."""
        elapsed_ms: dict[str, float] = {}
        (height, width), (input_height, input_width) = placement.size_hw, placement.input_hw
        with timed(elapsed_ms, "decoder"):
            coords = np.zeros((len(points_xy), 2, 2), np.float32)
            coords[:, 0] = points_xy * np.array([input_width / width, input_height / height])
            # The point, and the padding that stands for no box.
            labels = np.tile(np.array([1, -1], np.float32), (len(points_xy), 1))
            prompted = self._decoder.prompt(image, coords, labels)
            # Both gates compare in float32, as PyTorch compares a float32 tensor with a number; at 0 a gate is open.
            confident = prompted.pred_iou > np.float32(self._spec.pred_iou_thresh)
            confident |= self._spec.pred_iou_thresh <= 0
            indices, low_res = self._decoder.masks(image, prompted, confident)
        with timed(elapsed_ms, "masks"):
            points, pred_iou = points_xy[indices // MASKS_PER_POINT], prompted.pred_iou.ravel()[indices]
            threshold = self._sam.mask_threshold
            found = stable_candidates(low_res, points, pred_iou, placement, threshold, self._spec, self._kernels)
        return found, elapsed_ms
