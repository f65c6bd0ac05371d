"""Every mask that SAM finds on an image."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.kernels import sets
from maskrt.kernels.low_res import Placement
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle import MasksSpec, SamSpec
from maskrt.runtime.candidates import Candidate, CandidateFinder, Points, draw_rle
from maskrt.runtime.clean_up import clean_rle
from maskrt.runtime.crops import Crop, crop_boxes, cut_by_crop
from maskrt.runtime.errors import InputError
from maskrt.runtime.mask_decoder import MaskDecoder, Tensors, require_names
from maskrt.runtime.prompts import coarse_points, guided_points, inside_any, point_grid
from maskrt.runtime.region import fit_size_hw
from maskrt.runtime.rle import Rle, move_rle, rle_area
from maskrt.runtime.session import Session
from maskrt.runtime.timing import timed
from maskrt.runtime.types import Segments

CROP_NMS_THRESH = 0.7  # between crops; upstream's default


@dataclass(frozen=True)
class _Mask:
    """One mask that is kept; rle, box and point in pixels of the image."""

    candidate: Candidate
    rle: Rle
    box_xyxy: NDArray[np.int32]
    point_xy: Points
    crop_area: int


class AutomaticMasks:
    """Prompts SAM with points and keeps the confident, stable, distinct masks.

    The `encoder` takes `image`, uint8 [h, w, 3] RGB with longest side `sam.image_size`, and returns
    `image_embeddings`, float32 [1, C, e, e].

    No mask is made at full size: what passes the gates is decided on low-res logits, and only what survives non-maximum
    suppression gets run lengths.

    Source: segment_anything's SamAutomaticMaskGenerator defines the answer for `prompts="grid"`, order included.
    """

    def __init__(
        self, encoder: Session, decoder: MaskDecoder, sam: SamSpec, masks: MasksSpec, kernels: KernelSet = sets.CPU
    ) -> None:
        """Raises BundleError when the encoder does not have the names above."""
        require_names(encoder, "encoder", {"image"}, {"image_embeddings"})
        self._encoder = encoder
        self._finder = CandidateFinder(decoder, sam, masks, kernels)
        self._sam = sam
        self._spec = masks
        self._kernels = kernels

    @property
    def guided(self) -> bool:
        """Whether a call needs `foreground`."""
        return self._spec.prompts == "guided"

    def __call__(
        self,
        rgb: NDArray[np.uint8],
        timings_ms: dict[str, float],
        foreground: NDArray[np.float32] | None = None,
    ) -> Segments:
        """All masks of an image.

        Args:
            rgb: uint8 [H, W, 3], C-contiguous.
            timings_ms: gets the stages "encoder" (with the resize), "decoder" and "masks" added; for threads that work
                side by side, the mean of one.
            foreground: float32 [H, W], probability of anything but background; for `guided`, which needs it.

        Returns:
            Segments in the order upstream returns them. The clean-up of small regions replaces a mask, its box and its
            area, but not its stability score and predicted IoU, which stay those of the mask before, as upstream.

        Raises:
            InputError: `guided` without `foreground`.
            NetworkError: a network returned NaN, infinity, or a shape that the bundle does not declare.
        """
        if self.guided and foreground is None:
            raise InputError("prompts=guided needs the segmenter's probabilities: use prompts=grid without a segmenter")
        size_hw = rgb.shape[0], rgb.shape[1]
        crops = crop_boxes(size_hw, self._spec.crop_n_layers, self._spec.crop_overlap_ratio)
        masks: list[_Mask] = []
        for layer, crop in crops:
            x0, y0, x1, y1 = crop
            guide = None if foreground is None else foreground[y0:y1, x0:x1]
            part = np.ascontiguousarray(rgb[y0:y1, x0:x1])
            masks += self._crop(part, guide, layer, crop, size_hw, timings_ms)
        with timed(timings_ms, "masks"):
            if len(crops) > 1:  # the smaller crop saw more of what both saw
                scores = np.float32(1) / np.array([mask.crop_area for mask in masks], np.float32)
                masks = self._distinct(masks, scores, CROP_NMS_THRESH)
            if self._spec.min_mask_region_area > 0:
                masks = self._clean(masks)
            return _segments(masks, size_hw)

    def _crop(
        self,
        rgb: NDArray[np.uint8],
        foreground: NDArray[np.float32] | None,
        layer: int,
        crop: Crop,
        size_hw: tuple[int, int],
        timings_ms: dict[str, float],
    ) -> list[_Mask]:
        """The distinct masks of one crop, those that it cuts left out."""
        input_hw = fit_size_hw(rgb.shape[:2], (self._sam.image_size, self._sam.image_size))
        with timed(timings_ms, "encoder"):
            # Pillow, as upstream: its antialiased uint8 resampling in the graph would not be equal.
            image = np.array(Image.fromarray(rgb).resize(input_hw[::-1], Image.Resampling.BILINEAR))
            embeddings = self._encoder.run({"image": image}, keep=("image_embeddings",))["image_embeddings"]
        placement = Placement(self._sam.image_size, input_hw, (rgb.shape[0], rgb.shape[1]))
        with timed(timings_ms, "decoder"):
            shared = self._finder.prepare(embeddings)
        candidates = self._prompted(shared, layer, placement, foreground, timings_ms)
        with timed(timings_ms, "masks"):
            boxes = _boxes([candidate.box_xyxy for candidate in candidates])
            whole = np.flatnonzero(~cut_by_crop(boxes, crop, size_hw))
            pred_iou = np.array([candidates[i].pred_iou for i in whole], np.float32)
            kept = whole[self._kernels.box_nms(boxes[whole], pred_iou, self._spec.box_nms_thresh)]
            return [self._mask(candidates[i], placement, crop, size_hw) for i in kept]

    def _prompted(
        self,
        image: Tensors,
        layer: int,
        placement: Placement,
        foreground: NDArray[np.float32] | None,
        timings_ms: dict[str, float],
    ) -> list[Candidate]:
        """The candidates of all prompts that the policy chooses."""
        per_side = max(1, int(self._spec.points_per_side / self._spec.crop_n_points_downscale_factor**layer))
        if self.guided and foreground is not None:
            return self._finder.find(image, guided_points(per_side, foreground), placement, timings_ms)
        points_xy = point_grid(per_side) * np.array(placement.size_hw[::-1])
        if self._spec.prompts == "grid":
            return self._finder.find(image, points_xy, placement, timings_ms)
        coarse = coarse_points(per_side)
        candidates = self._finder.find(image, points_xy[coarse], placement, timings_ms)
        fine = points_xy[~coarse]
        known = inside_any(fine, candidates, self._sam.low_res_hw[0], placement, self._sam.mask_threshold)
        return candidates + self._finder.find(image, fine[~known], placement, timings_ms)

    def _mask(self, candidate: Candidate, placement: Placement, crop: Crop, size_hw: tuple[int, int]) -> _Mask:
        """A candidate drawn, in pixels of the image."""
        x0, y0, x1, y1 = crop
        rle = draw_rle(candidate, self._sam.low_res_hw[0], placement, self._sam.mask_threshold, self._kernels)
        if placement.size_hw != size_hw:
            rle = move_rle(rle, (x0, y0), size_hw)
        box = candidate.box_xyxy + np.array([x0, y0, x0, y0], np.int32)
        return _Mask(candidate, rle, box, candidate.point_xy + np.array([x0, y0]), (x1 - x0) * (y1 - y0))

    def _clean(self, masks: list[_Mask]) -> list[_Mask]:
        """Fill small holes, drop small islands, then remove the duplicates this made: untouched masks win."""
        cleaned, untouched = [], []
        for mask in masks:
            rle, box, changed = clean_rle(mask.rle, mask.box_xyxy, self._spec.min_mask_region_area, self._kernels)
            cleaned.append(replace(mask, rle=rle, box_xyxy=box))
            untouched.append(not changed)
        return self._distinct(cleaned, np.array(untouched, np.float32), max(self._spec.box_nms_thresh, CROP_NMS_THRESH))

    def _distinct(self, masks: list[_Mask], scores: NDArray[np.float32], iou_thresh: float) -> list[_Mask]:
        return [masks[i] for i in self._kernels.box_nms(_boxes([mask.box_xyxy for mask in masks]), scores, iou_thresh)]


def _boxes(boxes: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.array(boxes, np.int32).reshape(-1, 4)


def _segments(masks: list[_Mask], size_hw: tuple[int, int]) -> Segments:
    candidates = [mask.candidate for mask in masks]
    return Segments(
        size_hw=size_hw,
        rles=tuple(mask.rle for mask in masks),
        boxes_xyxy=_boxes([mask.box_xyxy for mask in masks]),
        points_xy=np.array([mask.point_xy for mask in masks], np.float64).reshape(-1, 2),
        pred_iou=np.array([c.pred_iou for c in candidates], np.float32),
        stability_score=np.array([c.stability_score for c in candidates], np.float32),
        area=np.array([rle_area(mask.rle) for mask in masks], np.int64),
    )
