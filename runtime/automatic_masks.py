"""Every mask that SAM finds on a grid of points."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.kernels import sets
from maskrt.kernels.low_res import Placement, Window, window_of
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle import MasksSpec, SamSpec
from maskrt.runtime.clean_up import clean_rle
from maskrt.runtime.mask_decoder import MASKS_PER_POINT, MaskDecoder, Tensors, require_names
from maskrt.runtime.nms import box_nms
from maskrt.runtime.region import fit_size_hw
from maskrt.runtime.rle import Rle, rle_area
from maskrt.runtime.session import Session
from maskrt.runtime.timing import timed
from maskrt.runtime.types import Segments

CROP_NMS_THRESH = 0.7  # upstream's default; without crops it only bounds the second NMS from below


@dataclass(frozen=True)
class _Candidate:
    """One mask that passed both gates: its box at full size and the low-res values inside it, no pixels yet."""

    window: Window
    box_xyxy: NDArray[np.int32]
    point_xy: NDArray[np.float64]
    pred_iou: np.float32
    stability_score: np.float32


@dataclass(frozen=True)
class _Mask:
    """One mask that is kept."""

    candidate: _Candidate
    rle: Rle
    box_xyxy: NDArray[np.int32]


class AutomaticMasks:
    """Prompts SAM with a grid of points and keeps the confident, stable, distinct masks.

    The `encoder` takes `image`, uint8 [h, w, 3] RGB with longest side `sam.image_size`, and returns
    `image_embeddings`, float32 [1, C, e, e].

    No mask is made at full size: what passes the gates is decided on low-res logits, and only what survives non-maximum
    suppression gets run lengths.

    Source: segment_anything's SamAutomaticMaskGenerator with crop_n_layers=0 defines the answer, order included.
    """

    def __init__(
        self, encoder: Session, decoder: MaskDecoder, sam: SamSpec, masks: MasksSpec, kernels: KernelSet = sets.CPU
    ) -> None:
        """Raises BundleError when the encoder does not have the names above."""
        require_names(encoder, "encoder", {"image"}, {"image_embeddings"})
        self._encoder = encoder
        self._decoder = decoder
        self._sam = sam
        self._spec = masks
        self._kernels = kernels

    def __call__(self, rgb: NDArray[np.uint8], timings_ms: dict[str, float]) -> Segments:
        """All masks of an image.

        Args:
            rgb: uint8 [H, W, 3], C-contiguous.
            timings_ms: gets the stages "encoder" (with the resize), "decoder" and "masks" added; for threads that work
                side by side, the mean of one.

        Returns:
            Segments in the order upstream returns them. The clean-up of small regions replaces a mask, its box and its
            area, but not its stability score and predicted IoU, which stay those of the mask before, as upstream.

        Raises:
            NetworkError: a network returned NaN, infinity, or a shape that the bundle does not declare.
        """
        size_hw = rgb.shape[0], rgb.shape[1]
        input_hw = fit_size_hw(size_hw, (self._sam.image_size, self._sam.image_size))
        with timed(timings_ms, "encoder"):
            # Pillow, as upstream: its antialiased uint8 resampling in the graph would not be equal.
            image = np.array(Image.fromarray(rgb).resize(input_hw[::-1], Image.Resampling.BILINEAR))
            embeddings = self._encoder.run({"image": image})["image_embeddings"]
        placement = Placement(self._sam.image_size, input_hw, size_hw)
        points_xy = point_grid(self._spec.points_per_side) * np.array(size_hw[::-1])
        candidates = self._candidates(embeddings, points_xy, placement, timings_ms)
        with timed(timings_ms, "masks"):
            kept = box_nms(
                np.array([c.box_xyxy for c in candidates], np.int32).reshape(-1, 4),
                np.array([c.pred_iou for c in candidates], np.float32),
                self._spec.box_nms_thresh,
            )
            masks = [self._mask(candidates[index], placement) for index in kept]
            if self._spec.min_mask_region_area > 0:
                masks = self._clean(masks)
            return _segments(masks, size_hw)

    def _candidates(
        self,
        embeddings: NDArray[np.float32],
        points_xy: NDArray[np.float64],
        placement: Placement,
        timings_ms: dict[str, float],
    ) -> list[_Candidate]:
        """The masks of all prompts that are confident and stable, in the order of prompts."""
        with timed(timings_ms, "decoder"):
            image = self._decoder.prepare(embeddings)
        step = min(self._spec.points_per_batch, self._decoder.batch or self._spec.points_per_batch)
        batches = [points_xy[first : first + step] for first in range(0, len(points_xy), step)]
        workers = self._decoder.workers
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(lambda batch_xy: self._batch(image, batch_xy, placement), batches))
        for _, elapsed_ms in results:
            for stage, value in elapsed_ms.items():
                timings_ms[stage] = timings_ms.get(stage, 0.0) + value / workers
        return [candidate for candidates, _ in results for candidate in candidates]

    def _batch(
        self, image: Tensors, points_xy: NDArray[np.float64], placement: Placement
    ) -> tuple[list[_Candidate], dict[str, float]]:
        """One batch of prompts, in a thread of its own, and what its stages took."""
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
            return self._stable(low_res, points, pred_iou, placement), elapsed_ms

    def _stable(
        self,
        low_res: NDArray[np.float32],
        points_xy: NDArray[np.float64],
        pred_iou: NDArray[np.float32],
        placement: Placement,
    ) -> list[_Candidate]:
        """Those of N low-res masks, float32 [N, l, l], that are stable."""
        threshold, offset = self._sam.mask_threshold, self._spec.stability_score_offset
        thresholds = np.array([threshold - offset, threshold, threshold + offset], np.float32)
        stability = np.empty(len(low_res), np.float32)
        boxes = np.empty((len(low_res), 4), np.int32)
        min_stability = self._spec.stability_score_thresh
        self._kernels.measure_masks(low_res, placement, thresholds, min_stability, stability, boxes)
        # A mask without any pixel has the score NaN, which passes no gate but the open one.
        stable = (min_stability <= 0) | (stability >= np.float32(min_stability))
        return [
            _Candidate(window_of(low_res[i], placement, boxes[i]), boxes[i], points_xy[i], pred_iou[i], stability[i])
            for i in np.flatnonzero(stable)
        ]

    def _mask(self, candidate: _Candidate, placement: Placement) -> _Mask:
        side, threshold, box = self._sam.low_res_hw[0], self._sam.mask_threshold, candidate.box_xyxy
        counts = self._kernels.mask_counts(candidate.window, side, placement, threshold, box)
        return _Mask(candidate, {"size": list(placement.size_hw), "counts": counts.tolist()}, box)

    def _clean(self, masks: list[_Mask]) -> list[_Mask]:
        """Fill small holes, drop small islands, then remove the duplicates this made: untouched masks win."""
        cleaned, untouched = [], []
        for mask in masks:
            rle, box, changed = clean_rle(mask.rle, mask.box_xyxy, self._spec.min_mask_region_area, self._kernels)
            cleaned.append(replace(mask, rle=rle, box_xyxy=box))
            untouched.append(not changed)
        boxes = np.array([mask.box_xyxy for mask in cleaned], np.int32).reshape(-1, 4)
        iou_thresh = max(self._spec.box_nms_thresh, CROP_NMS_THRESH)
        return [cleaned[i] for i in box_nms(boxes, np.array(untouched, np.float32), iou_thresh)]


def point_grid(points_per_side: int) -> NDArray[np.float64]:
    """float64 [n * n, 2], x y in 0 to 1, row by row: the centres of n x n equal cells."""
    offset = 1 / (2 * points_per_side)
    side = np.linspace(offset, 1 - offset, points_per_side)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def _segments(masks: list[_Mask], size_hw: tuple[int, int]) -> Segments:
    candidates = [mask.candidate for mask in masks]
    return Segments(
        size_hw=size_hw,
        rles=tuple(mask.rle for mask in masks),
        boxes_xyxy=np.array([mask.box_xyxy for mask in masks], np.int32).reshape(-1, 4),
        points_xy=np.array([c.point_xy for c in candidates], np.float64).reshape(-1, 2),
        pred_iou=np.array([c.pred_iou for c in candidates], np.float32),
        stability_score=np.array([c.stability_score for c in candidates], np.float32),
        area=np.array([rle_area(mask.rle) for mask in masks], np.int64),
    )
