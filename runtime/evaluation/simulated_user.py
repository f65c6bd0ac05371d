"""A simulated user, who clicks where the mask is most wrong."""

from collections.abc import Iterable

import numpy as np

from maskrt.kernels import sets
from maskrt.kernels.arrays import Mask
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.interactive.clicks import Click


def next_click(mask: Mask, truth: Mask, clicked: Iterable[Click], kernels: KernelSet = sets.CPU) -> Click | None:
    """Return a click on the pixel deepest inside what the mask lacks, or inside what it has too much.

    Depth is the distance to the nearest pixel that is not wrong in the same way; no pixel beyond the picture is wrong.
    The first of equally deep pixels in reading order is taken. If lack and excess are equally deep, excess is taken.

    Args:
        mask, truth: bool [H, W].
        clicked: pixels that are not taken again.

    Returns:
        The click, positive if the mask lacks the pixel; None if all wrong pixels have been clicked.

    Raises:
        ValueError: the masks differ in size.

    Source: "Reviving Iterative Training with Mask Guidance for Interactive Segmentation" and the clicker in its public
    code, which measures in float32 where this one measures in whole squares.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"mask is {mask.shape}, truth {truth.shape}: expected one size")
    clicks = list(clicked)
    lacking = _deepest(truth & ~mask, clicks, kernels)
    too_much = _deepest(mask & ~truth, clicks, kernels)
    depth, x, y = max(too_much, lacking, key=lambda found: found[0])  # the first of equals
    return Click(x, y, lacking[0] > too_much[0]) if depth > 0 else None


def _deepest(wrong: Mask, clicks: list[Click], kernels: KernelSet) -> tuple[int, int, int]:
    """Return the largest squared depth among pixels that are not clicked, and x and y of the first that has it."""
    rows, columns = np.flatnonzero(wrong.any(axis=1)), np.flatnonzero(wrong.any(axis=0))
    if rows.size == 0:
        return 0, 0, 0
    # No pixel outside the box is wrong, as outside a picture, so distances inside are the same.
    top, left = int(rows[0]), int(columns[0])
    box = np.ascontiguousarray(wrong[top : rows[-1] + 1, left : columns[-1] + 1])
    depths = np.empty(box.shape, np.int64)
    kernels.squared_distance(box, depths)
    for click in clicks:
        if 0 <= click.y - top < box.shape[0] and 0 <= click.x - left < box.shape[1]:
            depths[click.y - top, click.x - left] = 0
    y, x = divmod(int(depths.argmax()), box.shape[1])
    return int(depths[y, x]), left + x, top + y
