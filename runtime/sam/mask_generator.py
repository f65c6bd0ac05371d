"""Finds every mask of an image with SAM, or of several images at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.kernels import sets
from maskrt.kernels.low_res import Placement
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.batching import as_value, groups, in_halves, unwrap
from maskrt.runtime.bundle.specs import MasksSpec, SamSpec
from maskrt.runtime.engines.axes import IMAGE_AXES
from maskrt.runtime.engines.device_tensor import Tensor
from maskrt.runtime.engines.session import Session, require_names
from maskrt.runtime.errors import BundleError, InputError, NetworkError
from maskrt.runtime.region import fit_size_hw
from maskrt.runtime.rle import Rle, move_rle, rle_area
from maskrt.runtime.sam.candidates import Candidate, CandidateFinder, Points, draw_rle
from maskrt.runtime.sam.clean_up import clean_rle
from maskrt.runtime.sam.crops import Crop, crop_boxes, cut_by_crop
from maskrt.runtime.sam.mask_decoder import MaskDecoder, Tensors
from maskrt.runtime.sam.prompts import Grid, policy_of
from maskrt.runtime.timing import timed, timed_together
from maskrt.runtime.types import Segments

CROP_NMS_THRESH = 0.7  # IoU of boxes from different crops; upstream's default


@dataclass(frozen=True)
class _Mask:
    """A mask that is kept; rle, box and point are in pixels of the image."""

    candidate: Candidate
    rle: Rle
    box_xyxy: NDArray[np.int32]
    point_xy: Points
    crop_area: int


@dataclass
class _Search:
    """The search of one image: the masks that its crops have given so far, or the error that ended it."""

    rgb: NDArray[np.uint8]
    timings_ms: dict[str, float]
    foreground: NDArray[np.float32] | None
    crops: list[tuple[int, Crop]]
    masks: list[_Mask] = field(default_factory=list)
    error: NetworkError | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.rgb.shape[0], self.rgb.shape[1]

    def part(self, number: int) -> NDArray[np.uint8]:
        """Return the pixels of a crop, C-contiguous."""
        _, (x0, y0, x1, y1) = self.crops[number]
        return np.ascontiguousarray(self.rgb[y0:y1, x0:x1])


class AutomaticMaskGenerator:
    """Prompts SAM with points and keeps the confident, stable, distinct masks.

    The `encoder` takes `image`, uint8 [B, h, w, 3] RGB with longest side `sam.image_size`, and returns
    `image_embeddings`, float32 [B, C, e, e].

    No mask is drawn at full size: the gates look at low-res logits, and only the masks that survive non-maximum
    suppression get run lengths.

    Source: segment_anything's SamAutomaticMaskGenerator defines the answer for `prompts="grid"`, and the order.
    """

    def __init__(
        self, encoder: Session, decoder: MaskDecoder, sam: SamSpec, masks: MasksSpec, kernels: KernelSet = sets.CPU
    ) -> None:
        """Raise BundleError unless the encoder has the names and axes above, InputError for unknown prompts."""
        require_names(encoder, "encoder", {"image"}, {"image_embeddings"})
        if len(encoder.inputs["image"][1]) != IMAGE_AXES:
            raise BundleError(
                "the encoder takes one picture [h, w, 3], not a batch of them: export the bundle again with this maskrt"
            )
        self._encoder = encoder
        self._finder = CandidateFinder(decoder, sam, masks, kernels)
        self._sam = sam
        self._spec = masks
        self._policy = policy_of(masks.prompts)
        self._kernels = kernels

    @property
    def needs_foreground(self) -> bool:
        """Whether a call needs `foreground`."""
        return self._policy.needs_foreground

    def __call__(
        self,
        rgb: NDArray[np.uint8],
        timings_ms: dict[str, float],
        foreground: NDArray[np.float32] | None = None,
    ) -> Segments:
        """Return all masks of one image; see batch() for arguments, answer and errors."""
        return unwrap(self.batch([rgb], [timings_ms], [foreground])[0])

    def batch(
        self,
        images: Sequence[NDArray[np.uint8]],
        timings_ms: Sequence[dict[str, float]],
        foregrounds: Sequence[NDArray[np.float32] | None],
    ) -> list[Segments | NetworkError]:
        """Return all masks of each image.

        Images of one size are encoded together; all other work is done image by image.

        Args:
            images: uint8 [H, W, 3], C-contiguous, of any sizes.
            timings_ms: one dict for each image, which gets "encoder" (with the resize), "decoder" and "masks" added.
                Where threads run side by side it is the mean over the threads; images that are encoded together
                share the time equally.
            foregrounds: for each image float32 [H, W], the probability of anything but background; only for a policy
                that needs it.

        Returns:
            For each image its segments in upstream's order, or its own error. The clean-up of small regions replaces a
            mask, its box and its area. Stability score and predicted IoU stay those of the mask before, as upstream.

        Raises:
            InputError: the policy needs a foreground, and an image has none.
            NetworkError: the encoder returned NaN, infinity, or a shape that the bundle does not declare.
            OutOfMemory: not even half of the images that are encoded together fit.
        """
        if self.needs_foreground and any(foreground is None for foreground in foregrounds):
            raise InputError(
                f"prompts={self._spec.prompts} needs the segmenter's probabilities: "
                "use prompts=grid without a segmenter"
            )
        layers, overlap = self._spec.crop_n_layers, self._spec.crop_overlap_ratio
        searches = [
            _Search(rgb, own_ms, foreground, crop_boxes((rgb.shape[0], rgb.shape[1]), layers, overlap))
            for rgb, own_ms, foreground in zip(images, timings_ms, foregrounds, strict=True)
        ]
        # One crop of each image at a time, so that there are never more embeddings than images.
        for number in range(max((len(search.crops) for search in searches), default=0)):
            self._search([each for each in searches if number < len(each.crops) and each.error is None], number)
        return [search.error or self._distinct_segments(search) for search in searches]

    def _search(self, searches: Sequence[_Search], number: int) -> None:
        """Add the masks of one crop of each image, or its error; no embedding is kept afterwards."""
        for search, (embedding, placement) in zip(searches, self._encoded(searches, number), strict=True):
            try:
                search.masks += self._crop(search, number, embedding, placement)
            except NetworkError as error:
                search.error = as_value(error)

    def _encoded(self, searches: Sequence[_Search], number: int) -> list[tuple[Tensor, Placement]]:
        """Return the embedding of one crop of each image, float32 [1, C, e, e], and where its low-res masks lie."""
        side = self._sam.image_size
        with timed_together([search.timings_ms for search in searches], "encoder"):
            parts = [search.part(number) for search in searches]
            sizes = [fit_size_hw((part.shape[0], part.shape[1]), (side, side)) for part in parts]
            # Pillow, as upstream: a graph could not repeat its antialiased uint8 resampling exactly.
            resized = [
                np.array(Image.fromarray(part).resize(size_hw[::-1], Image.Resampling.BILINEAR))
                for part, size_hw in zip(parts, sizes, strict=True)
            ]
            found: dict[int, Tensor] = {}
            for indices in groups(sizes):
                runs = in_halves(self._embed, [resized[index] for index in indices])
                found |= zip(indices, (embedding for run in runs for embedding in run), strict=True)
        places = [
            Placement(side, size_hw, (part.shape[0], part.shape[1])) for part, size_hw in zip(parts, sizes, strict=True)
        ]
        return [(found[index], place) for index, place in enumerate(places)]

    def _embed(self, images: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Run the encoder once on images of one size."""
        embeddings = self._encoder.run({"image": np.stack(images)}, keep_on_device=("image_embeddings",))[
            "image_embeddings"
        ]
        if len(embeddings) != len(images):
            raise NetworkError(f"the encoder returned {len(embeddings)} embeddings of {len(images)}: export again")
        return [embeddings[index : index + 1] for index in range(len(images))]

    def _crop(self, search: _Search, number: int, embedding: Tensor, placement: Placement) -> list[_Mask]:
        """Return the distinct masks of one crop, without objects that the crop cuts."""
        layer, crop = search.crops[number]
        x0, y0, x1, y1 = crop
        foreground = None if search.foreground is None else search.foreground[y0:y1, x0:x1]
        with timed(search.timings_ms, "decoder"):
            shared = self._finder.prepare(embedding)
        candidates = self._prompted(shared, layer, placement, foreground, search.timings_ms)
        with timed(search.timings_ms, "masks"):
            boxes = _boxes([candidate.box_xyxy for candidate in candidates])
            whole = np.flatnonzero(~cut_by_crop(boxes, crop, search.size_hw))
            pred_iou = np.array([candidates[i].pred_iou for i in whole], np.float32)
            kept = whole[self._kernels.box_nms(boxes[whole], pred_iou, self._spec.box_nms_thresh)]
            return [self._mask(candidates[i], placement, crop, search.size_hw) for i in kept]

    def _distinct_segments(self, search: _Search) -> Segments:
        """Return the masks of all crops, without duplicates from overlapping crops or from the clean-up."""
        masks = search.masks
        with timed(search.timings_ms, "masks"):
            if len(search.crops) > 1:  # the smaller crop saw their common object in more detail
                scores = np.float32(1) / np.array([mask.crop_area for mask in masks], np.float32)
                masks = self._distinct(masks, scores, CROP_NMS_THRESH)
            if self._spec.min_mask_region_area > 0:
                masks = self._clean(masks)
            return _segments(masks, search.size_hw)

    def _prompted(
        self,
        image: Tensors,
        layer: int,
        placement: Placement,
        foreground: NDArray[np.float32] | None,
        timings_ms: dict[str, float],
    ) -> list[Candidate]:
        """Return the candidates of all prompts that the policy chooses."""
        per_side = max(1, int(self._spec.points_per_side / self._spec.crop_n_points_downscale_factor**layer))

        def ask(points_xy: Points) -> list[Candidate]:
            return self._finder.find(image, points_xy, placement, timings_ms)

        return self._policy.find(ask, Grid(per_side, placement, self._sam), foreground)

    def _mask(self, candidate: Candidate, placement: Placement, crop: Crop, size_hw: tuple[int, int]) -> _Mask:
        """Draw a candidate in pixels of the image."""
        x0, y0, x1, y1 = crop
        rle = draw_rle(candidate, self._sam.low_res_hw[0], placement, self._sam.mask_threshold, self._kernels)
        if placement.size_hw != size_hw:
            rle = move_rle(rle, (x0, y0), size_hw)
        box = candidate.box_xyxy + np.array([x0, y0, x0, y0], np.int32)
        return _Mask(candidate, rle, box, candidate.point_xy + np.array([x0, y0]), (x1 - x0) * (y1 - y0))

    def _clean(self, masks: list[_Mask]) -> list[_Mask]:
        """Fill small holes, drop small islands, then remove the duplicates that this made; untouched masks win."""
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
