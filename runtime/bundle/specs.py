"""What a bundle says of its networks, and the settings that it keeps; maskrt.runtime.bundle.two_stage_spec has two stages'."""

from typing import Annotated, Literal

import msgspec


class SegmenterSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the segmenter wants its input: RGB / 255, minus mean, over std; longest side resized to fit, zero-padded."""

    input_hw: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...]


class SamSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The SAM architecture's sizes. image_size: longest side in pixels that the encoder takes."""

    image_size: int
    low_res_hw: tuple[int, int]
    mask_threshold: float = 0.0


class MasksSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Automatic masks; the defaults are the source document's settings. Areas in pixels.

    prompts: where SAM is asked, see maskrt.runtime.sam.prompts; anything but "grid" changes the answer.
    points_per_batch: at most; the decoder in three graphs takes fewer at a time. The masks do not depend on it.
    crop_n_layers: further looks at 4, 16, ... overlapping crops, as segment_anything's options of the same names:
    crop_overlap_ratio is the overlap as a share of the shorter side, and a layer's grid has
    crop_n_points_downscale_factor times fewer points a side than the one before.
    """

    points_per_side: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 40
    points_per_batch: Annotated[int, msgspec.Meta(ge=1)] = 64
    pred_iou_thresh: float = 0.90
    stability_score_thresh: float = 0.85
    stability_score_offset: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    box_nms_thresh: float = 0.7
    min_mask_region_area: Annotated[int, msgspec.Meta(ge=0)] = 5
    prompts: Literal["grid", "guided", "coarse_to_fine"] = "grid"
    crop_n_layers: Annotated[int, msgspec.Meta(ge=0, le=4)] = 0
    crop_overlap_ratio: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 512 / 1500
    crop_n_points_downscale_factor: Annotated[int, msgspec.Meta(ge=1)] = 1


class VotingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How segments get their class. target: the class whose mask the pipeline returns."""

    target: int = 1
    vote: Literal["soft", "hard"] = "soft"
    uncovered: Literal["background", "segmenter"] = "background"


class RefinerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a CRM wants its input, and how it is run.

    mean, std: of RGB / 255. padding: pixels reflected around picture and mask. scales: of the picture, turn by turn;
    each turn decodes the whole mask, which the next one starts from. halo: pixels around a window of the picture
    beyond which nothing changes the backbone's answer in it; a multiple of 8.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    halo: Annotated[int, msgspec.Meta(ge=0, multiple_of=8)]
    padding: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 32
    scales: tuple[Annotated[float, msgspec.Meta(gt=0, le=1)], ...] = (0.125, 0.25, 0.5, 1.0)


class RefineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a refinement may save; only `full` and the tile leave the answer as it is.

    select: off, full, bbox, contour, strided:N or adaptive; see maskrt.runtime.pipelines.refine.selections; off, after SOSS, leaves its
    answer as it is. tile: pixels of a side that are
    fused and decoded at a time. memory_limit_mb: of the whole process, 10^6 bytes; the tile shrinks to stay within.
    """

    select: str = "full"
    tile: Annotated[int, msgspec.Meta(ge=16)] = 384
    memory_limit_mb: Annotated[int, msgspec.Meta(ge=1)] | None = None
