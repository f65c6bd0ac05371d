"""Every mask that SAM finds on a grid of points."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.kernels import sets
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle import MasksSpec, SamSpec
from maskrt.runtime.errors import BundleError, NetworkError
from maskrt.runtime.nms import box_nms
from maskrt.runtime.region import fit_size_hw
from maskrt.runtime.rle import Rle, decode_rle, rle_area
from maskrt.runtime.session import Session
from maskrt.runtime.timing import timed
from maskrt.runtime.types import Segments

MASKS_PER_POINT = 3  # SAM's multimask outputs: whole, part, subpart
CROP_NMS_THRESH = 0.7  # upstream's default; without crops it only bounds the second NMS from below


@dataclass(frozen=True)
class _Candidate:
    """One mask that passed both gates."""

    rle: Rle
    box_xyxy: NDArray[np.int32]
    point_xy: NDArray[np.float64]
    pred_iou: np.float32
    stability_score: np.float32


class AutomaticMasks:
    """Prompts SAM with a grid of points and keeps the confident, stable, distinct masks.

    The graphs: `encoder` takes `image`, uint8 [h, w, 3] RGB with longest side `sam.image_size`, and returns
    `image_embeddings`, float32 [1, C, e, e]; `decoder` takes those, `point_coords` float32 [B, P, 2] (x, y in pixels
    of that image) and `point_labels` float32 [B, P] (1 foreground, -1 padding), and returns `low_res_masks` float32
    [B, 3, l, l] and `pred_iou` float32 [B, 3].

    Source: segment_anything's SamAutomaticMaskGenerator with crop_n_layers=0 defines the answer, order included.
    """

    def __init__(
        self, encoder: Session, decoder: Session, sam: SamSpec, masks: MasksSpec, kernels: KernelSet = sets.CPU
    ) -> None:
        """Raises BundleError when a graph does not have the names above."""
        _require(encoder, "encoder", {"image"}, {"image_embeddings"})
        inputs = {"image_embeddings", "point_coords", "point_labels"}
        _require(decoder, "decoder", inputs, {"low_res_masks", "pred_iou"})
        self._encoder = encoder
        self._decoder = decoder
        self._sam = sam
        self._spec = masks
        self._kernels = kernels

    def __call__(self, rgb: NDArray[np.uint8], timings_ms: dict[str, float]) -> Segments:
        """All masks of an image.

        Args:
            rgb: uint8 [H, W, 3], C-contiguous.
            timings_ms: gets the stages "encoder" (with the resize), "decoder" and "masks" added.

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
        upsample = _Upsampling(self._sam, input_hw, size_hw, self._kernels)
        points_xy = point_grid(self._spec.points_per_side) * np.array(size_hw[::-1])
        candidates: list[_Candidate] = []
        for first in range(0, len(points_xy), self._spec.points_per_batch):
            batch_xy = points_xy[first : first + self._spec.points_per_batch]
            with timed(timings_ms, "decoder"):
                scaled_xy = batch_xy * np.array([input_hw[1] / size_hw[1], input_hw[0] / size_hw[0]])
                low_res_masks, pred_iou = self._decode(embeddings, scaled_xy)
            with timed(timings_ms, "masks"):
                candidates += self._gate(batch_xy, low_res_masks, pred_iou, upsample)
        with timed(timings_ms, "masks"):
            candidates = _distinct(candidates, [c.pred_iou for c in candidates], self._spec.box_nms_thresh)
            if self._spec.min_mask_region_area > 0:
                candidates = self._clean(candidates)
            return _segments(candidates, size_hw)

    def _decode(
        self, embeddings: NDArray[np.float32], points_xy: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """low_res_masks float32 [B, 3, l, l] and pred_iou float32 [B, 3] of one prompt per point, float64 [B, 2]."""
        batch = len(points_xy)
        coords = np.zeros((batch, 2, 2), np.float32)
        coords[:, 0] = points_xy
        labels = np.tile(np.array([1, -1], np.float32), (batch, 1))  # the point, and the padding that stands for no box
        outputs = self._decoder.run({"image_embeddings": embeddings, "point_coords": coords, "point_labels": labels})
        low_res_masks, pred_iou = outputs["low_res_masks"], outputs["pred_iou"]
        expected = (batch, MASKS_PER_POINT, *self._sam.low_res_hw), (batch, MASKS_PER_POINT)
        if (low_res_masks.shape, pred_iou.shape) != expected:
            raise NetworkError(
                f"the decoder returned {low_res_masks.shape} and {pred_iou.shape}, "
                f"the bundle declares {expected[0]} and {expected[1]}: export again"
            )
        return low_res_masks, pred_iou

    def _gate(
        self,
        points_xy: NDArray[np.float64],
        low_res_masks: NDArray[np.float32],
        pred_iou: NDArray[np.float32],
        upsample: "_Upsampling",
    ) -> list[_Candidate]:
        """The masks of one batch that are confident and stable. Only confident ones are ever upsampled."""
        spec, threshold = self._spec, self._sam.mask_threshold
        # Both gates compare in float32, as PyTorch compares a float32 tensor with a number; at 0 a gate is open.
        confident = (pred_iou > np.float32(spec.pred_iou_thresh)) | (spec.pred_iou_thresh <= 0)
        candidates = []
        for point, rank in np.argwhere(confident).tolist():
            logits = upsample(low_res_masks[point, rank])
            offset = spec.stability_score_offset
            union, intersection = self._kernels.count_above(logits, threshold - offset, threshold + offset)
            stability = np.float32(intersection) / np.float32(union) if union else np.float32(np.nan)
            # "not >=": a mask without any pixel has the score 0 / 0 and goes.
            if spec.stability_score_thresh > 0 and not stability >= np.float32(spec.stability_score_thresh):
                continue
            box, counts = self._kernels.box_and_counts(logits > np.float32(threshold))
            rle: Rle = {"size": list(logits.shape), "counts": counts.tolist()}
            candidates.append(_Candidate(rle, box, points_xy[point], pred_iou[point, rank], stability))
        return candidates

    def _clean(self, candidates: list[_Candidate]) -> list[_Candidate]:
        """Fill small holes, drop small islands, then remove the duplicates this made: untouched masks win."""
        min_area = self._spec.min_mask_region_area
        cleaned, untouched = [], []
        for candidate in candidates:
            mask = np.ascontiguousarray(decode_rle(candidate.rle))
            changed = self._kernels.remove_small_regions(mask, min_area, "holes", mask)
            changed |= self._kernels.remove_small_regions(mask, min_area, "islands", mask)
            if changed:
                box, counts = self._kernels.box_and_counts(mask)
                rle: Rle = {"size": list(mask.shape), "counts": counts.tolist()}
                candidate = replace(candidate, rle=rle, box_xyxy=box)
            cleaned.append(candidate)
            untouched.append(np.float32(not changed))
        return _distinct(cleaned, untouched, max(self._spec.box_nms_thresh, CROP_NMS_THRESH))


class _Upsampling:
    """Low-res logits to full size as Sam.postprocess_masks: to the square, padding off, to the image; buffers stay."""

    def __init__(self, sam: SamSpec, input_hw: tuple[int, int], size_hw: tuple[int, int], kernels: KernelSet) -> None:
        self._resize = kernels.resize_bilinear
        self._square = np.empty((1, sam.image_size, sam.image_size), np.float32)
        self._input_hw = input_hw
        self._full = np.empty((1, *size_hw), np.float32)

    def __call__(self, low_res: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [H, W] of float32 [l, l], valid until the next call."""
        self._resize(np.ascontiguousarray(low_res)[None], self._square)
        height, width = self._input_hw
        self._resize(np.ascontiguousarray(self._square[:, :height, :width]), self._full)
        full: NDArray[np.float32] = self._full[0]
        return full


def point_grid(points_per_side: int) -> NDArray[np.float64]:
    """float64 [n * n, 2], x y in 0 to 1, row by row: the centres of n x n equal cells."""
    offset = 1 / (2 * points_per_side)
    side = np.linspace(offset, 1 - offset, points_per_side)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def _distinct(candidates: list[_Candidate], scores: list[np.float32], iou_thresh: float) -> list[_Candidate]:
    boxes = np.array([candidate.box_xyxy for candidate in candidates], np.int32).reshape(-1, 4)
    return [candidates[i] for i in box_nms(boxes, np.array(scores, np.float32), iou_thresh)]


def _segments(candidates: list[_Candidate], size_hw: tuple[int, int]) -> Segments:
    return Segments(
        size_hw=size_hw,
        rles=tuple(c.rle for c in candidates),
        boxes_xyxy=np.array([c.box_xyxy for c in candidates], np.int32).reshape(-1, 4),
        points_xy=np.array([c.point_xy for c in candidates], np.float64).reshape(-1, 2),
        pred_iou=np.array([c.pred_iou for c in candidates], np.float32),
        stability_score=np.array([c.stability_score for c in candidates], np.float32),
        area=np.array([rle_area(c.rle) for c in candidates], np.int64),
    )


def _require(session: Session, role: str, inputs: set[str], outputs: set[str]) -> None:
    if not inputs <= set(session.inputs) or not outputs <= set(session.outputs):
        raise BundleError(
            f"the {role} takes {', '.join(session.inputs)} and returns {', '.join(session.outputs)}; expected "
            f"{', '.join(sorted(inputs))} and {', '.join(sorted(outputs))}: export the bundle again"
        )
