"""The definition of the work on connected regions: a flood fill in plain Python."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Mask
from maskrt.kernels.checks import check_array

Mode = Literal["holes", "islands"]


def remove_small_regions(mask: Mask, min_area: int, mode: Mode, out: Mask) -> bool:
    """Fill 8-connected background regions ("holes") or drop foreground ones ("islands") smaller than `min_area`.

    When every island is smaller, the largest stays. Among equally large ones it is the one whose first 2 x 2 block (in
    rows of blocks aligned at even pixels) comes first: OpenCV numbers regions in that order, not in the order of
    their first pixel, and upstream takes the first maximum.

    Args:
        mask: bool [H, W], C-contiguous.
        min_area: pixels; regions with fewer are removed.
        mode: "holes" or "islands".
        out: bool [H, W], C-contiguous, overwritten, also when nothing is small.

    Returns:
        Whether any region was smaller, as upstream reports it: true also when the only island was too small and stayed.

    Raises:
        ValueError: a shape, dtype or the mode differs from the above.

    Source: segment_anything.utils.amg.remove_small_regions.
    """
    check_mask(mask, mode, out)
    wanted = mode == "islands"
    regions = _regions(mask == wanted)
    small = [region for region in regions if len(region) < min_area]
    out[:] = mask
    for region in small:
        for y, x in region:
            out[y, x] = not wanted
    if wanted and small and len(small) == len(regions):
        columns = (mask.shape[1] + 1) // 2
        for y, x in max(regions, key=lambda region: (len(region), -min(y // 2 * columns + x // 2 for y, x in region))):
            out[y, x] = True
    return bool(small)


def region_boxes(mask: Mask) -> NDArray[np.int64]:
    """Return the box of every 8-connected foreground region.

    Args:
        mask: bool [H, W], C-contiguous.

    Returns:
        int64 [N, 4]: y0, x0 and, exclusive, y1, x1, in the order of the regions' first pixels.

    Raises:
        ValueError: a shape or dtype differs from the above.
    """
    check_array("mask", mask, np.bool_, (None, None))
    boxes = [[*np.min(region, axis=0), *(np.max(region, axis=0) + 1)] for region in _regions(mask)]
    return np.array(boxes, np.int64).reshape(-1, 4)


def check_mask(mask: Mask, mode: str, out: Mask) -> None:
    """Raise ValueError unless the arguments are as `remove_small_regions` wants them."""
    check_array("mask", mask, np.bool_, (None, None))
    check_array("out", out, np.bool_, mask.shape)
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode!r}: expected one of {', '.join(get_args(Mode))}")


def _regions(wanted: Mask) -> list[list[tuple[int, int]]]:
    """Return the pixels of every 8-connected region of true values."""
    height, width = wanted.shape
    seen = np.zeros_like(wanted)
    regions = []
    for start_y, start_x in np.argwhere(wanted).tolist():
        if seen[start_y, start_x]:
            continue
        seen[start_y, start_x] = True
        region = [(start_y, start_x)]
        for y, x in region:  # grows while it is read
            for near_y in range(max(0, y - 1), min(height, y + 2)):
                for near_x in range(max(0, x - 1), min(width, x + 2)):
                    if wanted[near_y, near_x] and not seen[near_y, near_x]:
                        seen[near_y, near_x] = True
                        region.append((near_y, near_x))
        regions.append(region)
    return regions
