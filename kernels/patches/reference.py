"""The definition of two-stage segmentation's work on patches, in plain NumPy.

A patch, or window, is a square of a picture [H, W] named by its corner (top, left) in pixels. It may reach beyond the
picture on the right and below: pixels there are black, and do not count.
"""

import numpy as np

from maskrt.kernels.arrays import Bytes, Doubles, Floats, Indices
from maskrt.kernels.checks import check_array
from maskrt.kernels.resample.reference import resize_bilinear

Corners = Indices  # [K, 2], top and left
Size = tuple[int, int]

STEP = 2.0**-20  # scores and cells are rounded to multiples of it, so rounding decides no order and sums are exact


def grid_of(size_hw: Size, side: int) -> Size:
    """Return how many patches of a side a picture has down and across; the last ones are padded."""
    return -(-size_hw[0] // side), -(-size_hw[1] // side)


def patch_means(values: Floats, size_hw: Size, side: int, out: Doubles) -> None:
    """Average planes, resized bilinearly to a picture's size, over the patches of a grid from the top left.

    Args:
        values: float32 [N, h, w], C-contiguous.
        size_hw: the picture's size in pixels.
        side: the side of a patch in pixels.
        out: float64 [N, rows, columns], see grid_of(), C-contiguous, overwritten; over pixels inside the picture.

    Raises:
        ValueError: a shape or dtype differs from the above, or there are no pixels.
    """
    check_means(values, size_hw, side, out)
    resized = np.empty((len(values), *size_hw), np.float32)
    resize_bilinear(values, resized)
    for i, j in np.ndindex(*grid_of(size_hw, side)):
        patch = resized[:, i * side : (i + 1) * side, j * side : (j + 1) * side]
        out[:, i, j] = patch.mean(axis=(1, 2), dtype=np.float64)


def gather_patches(picture: Bytes, corners: Corners, table: Floats, out: Floats) -> None:
    """Cut patches out of a picture, channels first and normalised by a table; they are black where the picture ends.

    Args:
        picture: uint8 [H, W, C], C-contiguous.
        corners: int64 [N, 2], top and left; in the picture.
        table: float32 [C, 256], what a channel's value becomes.
        out: float32 [N, C, h, w], C-contiguous, overwritten.

    Raises:
        ValueError: a shape or dtype differs from the above, or a corner leaves the picture.
    """
    check_gather(picture, corners, table, out)
    for patch, (top, left) in zip(out, corners, strict=True):
        inside = picture[top : top + out.shape[2], left : left + out.shape[3]]
        for channel in range(picture.shape[2]):
            patch[channel] = table[channel, 0]
            patch[channel, : inside.shape[0], : inside.shape[1]] = table[channel, inside[:, :, channel]]


def blend_patches(found: Floats, corners: Corners, ramp: int, out: Floats) -> None:
    """Put patches into a map. With a ramp they fade into it, and into each other where they overlap.

    Where the weights of the patches over a pixel sum to W it becomes (sum of weight * patch + max(0, 1 - W) * map) /
    max(1, W). A patch's weight is 1; towards each of its borders that lies inside the map, it falls linearly to 0 over
    `ramp` pixels; the two axes' weights are multiplied.

    Args:
        found: float32 [N, C, side, side], C-contiguous.
        corners: int64 [N, 2], top and left; in the map.
        ramp: pixels; 0 replaces the map's values.
        out: float32 [C, H, W], C-contiguous; changed under the patches.

    Raises:
        ValueError: a shape or dtype differs from the above, a corner leaves the map, or the ramp is negative.
    """
    check_blend(found, corners, ramp, out)
    total, weighted = np.zeros(out.shape[1:], np.float32), np.zeros_like(out)
    rows, columns = ramp_weights(corners, found.shape[2], ramp, (out.shape[1], out.shape[2]))
    for n, (top, left) in enumerate(corners):
        under = slice(top, top + found.shape[2]), slice(left, left + found.shape[3])
        weight = rows[n, : total[under].shape[0], None] * columns[n, None, : total[under].shape[1]]
        total[under] += weight
        weighted[:, *under] += weight * found[n, :, : weight.shape[0], : weight.shape[1]]
    one = np.float32(1)
    blended = (weighted + np.maximum(np.float32(0), one - total) * out) / np.maximum(one, total)
    np.copyto(out, blended, where=total > 0)


def ramp_weights(corners: Corners, side: int, ramp: int, size_hw: Size) -> tuple[Floats, Floats]:
    """Return each patch's weights down and across, float32 [N, side] both; see blend_patches."""
    places = np.arange(side, dtype=np.float32) + np.float32(0.5)
    rising = np.minimum(np.float32(1), places / np.float32(max(ramp, 0.5)))  # 0.5 leaves 1 everywhere
    weights = []
    for starts, size in zip(corners.T, size_hw, strict=True):
        before = np.where((starts > 0)[:, None], rising, np.float32(1))
        after = np.where((starts + side < size)[:, None], rising[::-1], np.float32(1))
        weights.append(np.ascontiguousarray(np.minimum(before, after)))
    return weights[0], weights[1]


def choose_windows(uncertainty: Doubles, side: int, count: int, least: float) -> Corners:
    """Choose windows greedily: the one with the largest sum comes first, and its cells count as 0 from then on.

    Args:
        uncertainty: float64 [h, w], 0 to 1, C-contiguous; rounded to multiples of STEP.
        side: the side of a window in cells, clipped to the axes.
        count: the most windows to choose.
        least: the choice ends before a window whose mean over its cells is below it; above 0.

    Returns:
        Corners, int64 [K, 2], in the order chosen; among equal sums the upper one, and in one row the left one, is
        first.

    Raises:
        ValueError: a shape or dtype differs from the above, a value is not 0 to 1, or side or least is too small.
    """
    check_choice(uncertainty, side, least)
    left = np.rint(uncertainty / STEP).astype(np.int64)
    height, width = (min(side, size) for size in left.shape)
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count:
        sums = np.lib.stride_tricks.sliding_window_view(left, (height, width)).sum(axis=(2, 3))
        best = np.unravel_index(sums.argmax(), sums.shape)
        if sums[best] * STEP < least * height * width:
            break
        chosen.append((int(best[0]), int(best[1])))
        left[best[0] : best[0] + height, best[1] : best[1] + width] = 0
    return np.array(chosen, np.int64).reshape(-1, 2)


def check_means(values: Floats, size_hw: Size, side: int, out: Doubles) -> None:
    """Raise ValueError unless the arguments are as `patch_means` wants them."""
    check_array("values", values, np.float32, (None, None, None))
    if side < 1 or min(size_hw) < 1 or 0 in values.shape[1:]:
        raise ValueError(f"no patches of side {side} of {list(values.shape)} as {list(size_hw)}: there are no pixels")
    check_array("out", out, np.float64, (values.shape[0], *grid_of(size_hw, side)))


def check_gather(picture: Bytes, corners: Corners, table: Floats, out: Floats) -> None:
    """Raise ValueError unless the arguments are as `gather_patches` wants them."""
    check_array("picture", picture, np.uint8, (None, None, None))
    channels = picture.shape[2]
    check_array("table", table, np.float32, (channels, 256))
    check_array("out", out, np.float32, (None, channels, None, None))
    _check_corners(corners, out.shape[0], (picture.shape[0], picture.shape[1]))


def check_blend(found: Floats, corners: Corners, ramp: int, out: Floats) -> None:
    """Raise ValueError unless the arguments are as `blend_patches` wants them."""
    check_array("out", out, np.float32, (None, None, None))
    check_array("found", found, np.float32, (None, out.shape[0], None, found.shape[2] if found.ndim == 4 else None))
    if ramp < 0:
        raise ValueError(f"ramp {ramp} is below 0")
    _check_corners(corners, found.shape[0], (out.shape[1], out.shape[2]))


def check_choice(uncertainty: Doubles, side: int, least: float) -> None:
    """Raise ValueError unless the arguments are as `choose_windows` wants them."""
    check_array("uncertainty", uncertainty, np.float64, (None, None))
    if uncertainty.size == 0 or not (uncertainty.min() >= 0 and uncertainty.max() <= 1):
        raise ValueError("uncertainty: expected values from 0 to 1, and at least one")
    if side < 1 or not least > 0:
        raise ValueError(f"side {side} is below 1, or least {least} not above 0")


def _check_corners(corners: Corners, count: int, size_hw: Size) -> None:
    check_array("corners", corners, np.int64, (count, 2))
    if (corners < 0).any() or (corners >= size_hw).any():
        raise ValueError(f"corners: one leaves a picture of {list(size_hw)}")
