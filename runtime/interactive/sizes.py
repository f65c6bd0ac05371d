"""The sizes at which the networks of an interactive session run."""

from maskrt.runtime.bundle.specs import SamSpec
from maskrt.runtime.engines.axes import Inputs, Range

CLICKS: Range = (1, 2, 64)  # points of a prompt: clicks, and the corners of a box or the padding


def click_decoder_inputs() -> Inputs:
    """Return the number of points of a prompt."""
    return {"point_coords": {1: CLICKS}, "point_labels": {1: CLICKS}}


def step_inputs(sam: SamSpec) -> Inputs:
    """Return the axes of a training step, which usually learns from one click: one row and one column of the grid."""
    pixels: Range = (1, 1, sam.image_size)
    cells: Range = (1, 1, sam.low_res_hw[0])
    return {
        **click_decoder_inputs(),
        "rows": {0: pixels},
        "columns": {0: pixels},
        "cell_rows": {0: cells},
        "cell_columns": {0: cells},
        "target": {0: pixels, 1: pixels},
    }
