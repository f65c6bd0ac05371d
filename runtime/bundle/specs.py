"""The networks that a bundle describes, and the settings that it keeps; two_stage_spec has those of two stages."""

from typing import Annotated, Literal

import msgspec


class SegmenterSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input of the segmenter: RGB / 255, minus mean, over std; longest side resized to fit, zero-padded."""

    input_hw: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2:  # softmax is 1 everywhere
            raise ValueError(f"classes={list(self.classes)}: a segmenter has at least two, the background among them")


class SamSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The SAM architecture's sizes. image_size: longest side in pixels that the encoder takes."""

    image_size: int
    low_res_hw: tuple[int, int]
    mask_threshold: float = 0.0


class MasksSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of automatic masks; the defaults are the source document's. Areas are in pixels.

    prompts: a policy of maskrt.runtime.sam.prompts; anything but "grid" changes the answer. points_per_batch: the
    decoder in three graphs takes fewer at a time. crop_n_layers: further searches of 4, 16, ... overlapping crops; it
    and the other crop settings are segment_anything's options of the same names.
    """

    points_per_side: Annotated[
        int, msgspec.Meta(ge=1, le=1000, description="points along each side of the grid that SAM is asked at")
    ] = 40
    points_per_batch: Annotated[
        int, msgspec.Meta(ge=1, description="the most points that the decoder takes at a time; the masks stay the same")
    ] = 64
    pred_iou_thresh: Annotated[
        float, msgspec.Meta(description="a mask is kept above this IoU, by SAM's own estimate")
    ] = 0.90
    stability_score_thresh: Annotated[
        float,
        msgspec.Meta(description="a mask is kept from this stability on: its IoU with itself at other thresholds"),
    ] = 0.85
    stability_score_offset: Annotated[
        float, msgspec.Meta(ge=0, description="how far from SAM's threshold these other thresholds are, as a logit")
    ] = 1.0
    box_nms_thresh: Annotated[
        float, msgspec.Meta(description="of masks whose boxes overlap by more than this IoU, the best one is kept")
    ] = 0.7
    min_mask_region_area: Annotated[
        int, msgspec.Meta(ge=0, description="smaller holes and islands of a mask are removed, in pixels")
    ] = 5
    prompts: Annotated[str, msgspec.Meta(description="where SAM is asked: grid, guided or coarse_to_fine")] = "grid"
    crop_n_layers: Annotated[
        int, msgspec.Meta(ge=0, le=4, description="layers of crops that are searched too: 4 crops, then 16, and so on")
    ] = 0
    crop_overlap_ratio: Annotated[
        float, msgspec.Meta(ge=0, lt=1, description="overlap of neighbouring crops, as a share of the shorter side")
    ] = 512 / 1500
    crop_n_points_downscale_factor: Annotated[
        int, msgspec.Meta(ge=1, description="a layer's grid has so many times fewer points a side than the one before")
    ] = 1


class VotingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of how segments get their class."""

    target: Annotated[int, msgspec.Meta(description="the number of the class whose mask is returned")] = 1
    vote: Annotated[
        Literal["soft", "hard"],
        msgspec.Meta(description="soft: sum the probabilities under a segment; hard: count pixels"),
    ] = "soft"
    uncovered: Annotated[
        Literal["background", "segmenter"],
        msgspec.Meta(description="what pixels without a segment become: background, or what the segmenter says"),
    ] = "background"


class RefinerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input of a CRM, and how it is run.

    mean, std: of RGB / 255. padding: pixels reflected around picture and mask. scales: the picture's scale in each
    stage of the cascade; a stage decodes the whole mask, and the next one starts from it. halo: pixels around a window
    of the picture beyond which nothing changes the backbone's answer in it; a multiple of 8.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    halo: Annotated[int, msgspec.Meta(ge=0, multiple_of=8)]
    padding: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 32
    scales: tuple[Annotated[float, msgspec.Meta(gt=0, le=1)], ...] = (0.125, 0.25, 0.5, 1.0)


class RefinementSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of what a refinement may save; only `full` and the tile leave the answer as it is.

    select: see maskrt.runtime.pipelines.refine.selections; off, after SOSS, leaves its answer as it is.
    """

    select: Annotated[
        str, msgspec.Meta(description="pixels that are decoded: full, bbox, contour, strided:N or adaptive; off: none")
    ] = "full"
    tile: Annotated[int, msgspec.Meta(ge=16, description="pixels of a side that are fused and decoded at a time")] = 384
    memory_limit_mb: (
        Annotated[
            int, msgspec.Meta(ge=1, description="memory of the whole process in MB; the tile shrinks to stay within")
        ]
        | None
    ) = None
