"""The values that flow through a pipeline: Source -> Frame -> Pipeline -> Result -> Sink."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.rle import Rle, decode_rle

Labels = NDArray[np.uint8] | NDArray[np.uint16]
Roi = tuple[int, int, int, int]  # x, y, width, height in pixels of the frame
Report = Callable[[str], None]  # gets a line for every step that is finished


@dataclass(frozen=True)
class Frame:
    """One picture from a source.

    rgb is uint8 [H, W, 3]; depth_mm, where the camera has it, uint16 [H, W] with 0 for "no reading".
    """

    rgb: NDArray[np.uint8]
    index: int = 0
    name: str = ""
    timestamp_us: int | None = None
    depth_mm: NDArray[np.uint16] | None = None


@dataclass(frozen=True)
class BadFrame:
    """A frame that could not be read. The run continues, counts it, and ends with exit code 3."""

    index: int
    name: str
    reason: str


@dataclass(frozen=True)
class Segments:
    """N class-agnostic masks in the coordinates of the image they were made from.

    rles: N uncompressed COCO run lengths (column order); boxes_xyxy: int32 [N, 4], last pixel inclusive as upstream;
    points_xy: float64 [N, 2], the prompt that produced the mask; pred_iou, stability_score: float32 [N];
    area: int64 [N] in pixels.
    """

    size_hw: tuple[int, int]
    rles: tuple[Rle, ...]
    boxes_xyxy: NDArray[np.int32]
    points_xy: NDArray[np.float64]
    pred_iou: NDArray[np.float32]
    stability_score: NDArray[np.float32]
    area: NDArray[np.int64]

    @classmethod
    def none(cls, size_hw: tuple[int, int]) -> Self:
        """Return no segments."""
        shares, areas = np.zeros(0, np.float32), np.zeros(0, np.int64)
        return cls(size_hw, (), np.zeros((0, 4), np.int32), np.zeros((0, 2), np.float64), shares, shares, areas)

    def __len__(self) -> int:
        return len(self.rles)

    def dense(self) -> NDArray[np.bool_]:
        """Return all masks as bool [N, H, W]. They take N * H * W bytes, so only for small N or on request."""
        masks = np.zeros((len(self), *self.size_hw), dtype=np.bool_)
        for mask, rle in zip(masks, self.rles, strict=True):
            mask[:] = decode_rle(rle)
        return masks


@dataclass(frozen=True)
class Stages:
    """The windows that a two-stage segmenter looked at again.

    working_hw: the region's size as the second network sees it; padded_hw: that of the grid of patches over it, whose
    last ones are padded with black where the two differ. windows_xywh: x, y, width, height in pixels, the most
    uncertain first; without what lies beyond the region.
    """

    working_hw: tuple[int, int]
    padded_hw: tuple[int, int]
    windows_xywh: tuple[Roi, ...]


@dataclass(frozen=True)
class Result:
    """The answer of a pipeline for one frame; every array is in frame coordinates.

    mask: bool [H, W], the pipeline's answer for the class of interest (occlusion). label: uint8 [H, W], class per
    pixel (0 outside the ROI); uint16 for a refined label map with classes past 255. probability: float32 [H, W] (0
    outside the ROI), the segmenter's for the class of interest, or after refinement that of the most probable class.
    segments: masks in frame coordinates; segment_classes: int64 [N], the class that the votes gave each. timings_ms:
    stage -> milliseconds. stages: the windows of a two-stage segmenter; None for others.
    """

    mask: NDArray[np.bool_]
    label: Labels
    probability: NDArray[np.float32]
    roi_xywh: Roi
    segments: Segments
    segment_classes: NDArray[np.int64]
    timings_ms: dict[str, float] = field(default_factory=dict)
    stages: Stages | None = None
