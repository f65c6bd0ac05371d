"""Removes small holes and islands of a mask, working on its box instead of the whole image."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.sets import KernelSet
from maskrt.runtime.rle import Rle, decode_part, move_rle


def clean_rle(
    rle: Rle, box_xyxy: NDArray[np.int32], min_area: int, kernels: KernelSet
) -> tuple[Rle, NDArray[np.int32], bool]:
    """Fill holes and drop islands smaller than `min_area` pixels; the result is the same as on the whole image.

    A background region that leaves the box is joined to all that is around the box, so a margin of `min_area` pixels
    is enough to tell it from a hole.

    Args:
        rle: the mask.
        box_xyxy: int32 [4], the box of the mask, last pixel inclusive.
        min_area: pixels, at least 1.

    Returns:
        The mask and its box afterwards, and whether upstream would call the mask changed (see remove_small_regions).
    """
    height, width = rle["size"]
    x0, y0, x1, y1 = box_xyxy.tolist()
    # Even corners: which of equally large islands stays depends on 2 x 2 blocks of pixels.
    left, top = max(0, x0 - min_area) & ~1, max(0, y0 - min_area) & ~1
    right, bottom = min(width, x1 + 1 + min_area), min(height, y1 + 1 + min_area)
    part = decode_part(rle, (left, top, right - left, bottom - top))
    changed = kernels.remove_small_regions(part, min_area, "holes", part)
    changed |= kernels.remove_small_regions(part, min_area, "islands", part)
    if not changed:
        return rle, box_xyxy, False
    box, counts = kernels.box_and_counts(part)
    inside: Rle = {"size": list(part.shape), "counts": counts.tolist()}
    if part.any():
        box = box + np.array([left, top, left, top], np.int32)
    return move_rle(inside, (left, top), (height, width)), box, True
