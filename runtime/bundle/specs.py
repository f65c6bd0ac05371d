"""The networks that a bundle describes, and the settings that it keeps; two_stage_spec has those of two stages."""

from typing import Annotated, Literal

import msgspec

from maskrt.runtime.bundle.bounds import ClassName, Deviation, Logit, Mean, Side, check_classes

MAX_PROMPTS = 100_000  # a grid of 256 x 256 has 65,536; four layers of crops at 32 a side have 349,184


class SegmenterSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input of the segmenter: RGB / 255, minus mean, over std; longest side resized to fit, zero-padded."""

    input_hw: tuple[Side, Side]
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    classes: tuple[ClassName, ...]

    def __post_init__(self) -> None:
        check_classes(self.classes)


class SamSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The SAM architecture's sizes. image_size: longest side in pixels that the encoder takes."""

    image_size: Side
    low_res_hw: tuple[Side, Side]
    mask_threshold: Logit = 0.0


class MasksSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of automatic masks; the defaults are the source document's. Areas are in pixels.

    prompts: a policy of maskrt.runtime.sam.prompts; anything but "grid" changes the answer. points_per_batch: the
    decoder in three graphs takes fewer at a time. crop_n_layers: further searches of 4, 16, ... overlapping crops; it
    and the other crop settings are segment_anything's options of the same names.
    """

    points_per_side: Annotated[
        int, msgspec.Meta(ge=1, le=256, description="points along each side of the grid that SAM is asked at")
    ] = 40
    points_per_batch: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=65536, description="the most points that the decoder takes at a time; the masks stay the same"
        ),
    ] = 64
    pred_iou_thresh: Annotated[
        float, msgspec.Meta(ge=-1, le=2, description="a mask is kept above this IoU, by SAM's own estimate")
    ] = 0.90
    stability_score_thresh: Annotated[
        float,
        msgspec.Meta(
            ge=-1, le=2, description="a mask is kept from this stability on: its IoU with itself at other thresholds"
        ),
    ] = 0.85
    stability_score_offset: Annotated[
        float,
        msgspec.Meta(ge=0, le=1000, description="how far from SAM's threshold these other thresholds are, as a logit"),
    ] = 1.0
    box_nms_thresh: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=1, description="of masks whose boxes overlap by more than this IoU, the best one is kept"
        ),
    ] = 0.7
    min_mask_region_area: Annotated[
        int,
        msgspec.Meta(ge=0, le=1_000_000_000, description="smaller holes and islands of a mask are removed, in pixels"),
    ] = 5
    prompts: Annotated[str, msgspec.Meta(description="where SAM is asked: grid, guided or coarse_to_fine")] = "grid"
    crop_n_layers: Annotated[
        int, msgspec.Meta(ge=0, le=4, description="layers of crops that are searched too: 4 crops, then 16, and so on")
    ] = 0
    crop_overlap_ratio: Annotated[
        float, msgspec.Meta(ge=0, lt=1, description="overlap of neighbouring crops, as a share of the shorter side")
    ] = 512 / 1500
    crop_n_points_downscale_factor: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=256, description="a layer's grid has so many times fewer points a side than the one before"
        ),
    ] = 1

    def __post_init__(self) -> None:
        prompts = self.prompts_in_all
        if prompts > MAX_PROMPTS:
            raise ValueError(
                f"points_per_side and crop_n_layers make {prompts} prompts a picture, over the bound of {MAX_PROMPTS}: "
                "lower them, or raise crop_n_points_downscale_factor"
            )

    @property
    def prompts_in_all(self) -> int:
        """How many points the picture and the crops of all layers are asked at, where the prompts are a grid."""
        sides = [max(1, self.points_per_side // self.crop_n_points_downscale_factor**i) for i in range(5)]
        return sum(4**layer * sides[layer] ** 2 for layer in range(self.crop_n_layers + 1))


class VotingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of how segments get their class."""

    target: Annotated[int, msgspec.Meta(ge=0, le=255, description="the number of the class whose mask is returned")] = 1
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

    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    halo: Annotated[int, msgspec.Meta(ge=0, le=8192, multiple_of=8)]
    padding: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 32
    scales: Annotated[
        tuple[Annotated[float, msgspec.Meta(ge=0.001, le=1)], ...], msgspec.Meta(min_length=1, max_length=16)
    ] = (0.125, 0.25, 0.5, 1.0)


class RefinementSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of what a refinement may save; only `full` and the tile leave the answer as it is.

    select: see maskrt.runtime.pipelines.refine.selections; off, after SOSS, leaves its answer as it is.
    """

    select: Annotated[
        str, msgspec.Meta(description="pixels that are decoded: full, bbox, contour, strided:N or adaptive; off: none")
    ] = "full"
    tile: Annotated[
        int, msgspec.Meta(ge=16, le=65536, description="pixels of a side that are fused and decoded at a time")
    ] = 384
    memory_limit_mb: (
        Annotated[
            int,
            msgspec.Meta(
                ge=1, le=100_000_000, description="memory of the whole process in MB; the tile shrinks to stay within"
            ),
        ]
        | None
    ) = None
