"""The sizes at which SAM's graphs run, for engines that are built for some sizes only."""

from maskrt.runtime.bundle.specs import MasksSpec, SamSpec
from maskrt.runtime.engines.axes import EVERY, Axes, Inputs, Range
from maskrt.runtime.sam.mask_decoder import MASKS_PER_POINT, SplitDecoder

POINTS: Range = (1, 2, 16)  # points of a prompt: automatic masks have a point and its padding, a box two corners
TOKENS, HEADS = 5, 8  # SAM's decoder has 5 output tokens beside the points, and 8 heads at every published size


def encoder_inputs(sam: SamSpec) -> Inputs:
    """Return the sides of the encoder's picture; its longest one is the SAM's size."""
    size = sam.image_size
    return {"image": {1: (1, size, size), 2: (1, size, size)}}


def decoder_inputs(masks: MasksSpec) -> Inputs:
    """Return the axes of the decoder in one graph."""
    batch = masks.points_per_batch
    prompts: Range = (1, batch, batch)
    return {
        "point_coords": {0: prompts, 1: POINTS},
        "point_labels": {0: prompts, 1: POINTS},
        "mask_input": {0: (1, 1, batch)},  # one mask for all prompts, or one for each
    }


def token_side_inputs(masks: MasksSpec) -> Inputs:
    """Return the axes of the graph that sees batches of prompts."""
    batch = _split_batch(masks)
    axes: Axes = {0: (1, batch, batch), 1: POINTS}
    return {"point_coords": axes, "point_labels": axes}


def upscale_inputs(masks: MasksSpec) -> Inputs:
    """Return the axes of the graph that draws the masks of one prompt at a time."""
    prompts: Range = (1, 1, _split_batch(masks))
    rows: Range = (1, HEADS * (TOKENS + POINTS[1]), HEADS * (TOKENS + POINTS[2]))
    return {
        "kernels": {0: prompts, 1: (1, MASKS_PER_POINT, MASKS_PER_POINT)},
        "gains": {0: prompts},
        EVERY: {0: prompts, 1: rows},
    }


def _split_batch(masks: MasksSpec) -> int:
    """Return how many prompts CandidateFinder.find sends at a time."""
    return min(masks.points_per_batch, SplitDecoder.batch or masks.points_per_batch)
