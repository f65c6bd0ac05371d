"""Two-stage segmentation's work on patches, on a GPU. Windows are still chosen on the CPU, see kernels.sets."""

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from maskrt.kernels import device
from maskrt.kernels.arrays import Bytes, Doubles, Floats
from maskrt.kernels.device import product
from maskrt.kernels.patches.cpu import mean_weights
from maskrt.kernels.patches.reference import Corners, Size, check_blend, check_gather, check_means, ramp_weights

Bounds = NDArray[np.int64]


def patch_means(values: Floats, size_hw: Size, side: int, out: Doubles) -> None:
    """Average planes, resized bilinearly to a picture's size, over the patches of a grid from the top left.

    Args:
        values: float32 [N, h, w], C-contiguous. May be on the device.
        size_hw: the picture's size in pixels.
        side: the side of a patch in pixels.
        out: float64 [N, rows, columns], C-contiguous, overwritten; over pixels in the picture. May be on the device.

    Raises:
        ValueError: a shape or dtype differs from the above, or there are no pixels.

    Source: reference.patch_means is the definition, equal up to rounding; cpu.patch_means explains the method.
    """
    check_means(values, size_hw, side, out)
    tables = []
    for axis in (0, 1):
        weights = mean_weights(values.shape[axis + 1], size_hw[axis], side)
        tables += [device.to_device(weights), device.to_device(_bounds(weights))]
    with device.written(out) as means:
        device.launch(_means, out.size, device.to_device(values), *tables, means)


def gather_patches(picture: Bytes, corners: Corners, table: Floats, out: Floats) -> None:
    """Cut patches out of a picture, channels first and normalised by a table; they are black where the picture ends.

    Args:
        picture: uint8 [H, W, C], C-contiguous. May be on the device.
        corners: int64 [N, 2], top and left; in the picture.
        table: float32 [C, 256], what a channel's value becomes.
        out: float32 [N, C, h, w], C-contiguous, overwritten. May be on the device.

    Raises:
        ValueError: a shape or dtype differs from the above, or a corner leaves the picture.

    Source: reference.gather_patches is the definition.
    """
    check_gather(picture, corners, table, out)
    given = map(device.to_device, (picture, corners, table))
    with device.written(out) as gathered:
        device.launch(_gather, out.size, *given, gathered)


def blend_patches(found: Floats, corners: Corners, ramp: int, out: Floats) -> None:
    """Put patches into a map. With a ramp they fade into it, and into each other where they overlap.

    Args:
        found: float32 [N, C, side, side], C-contiguous. May be on the device.
        corners: int64 [N, 2], top and left; in the map.
        ramp: pixels over which a patch's weight falls towards its borders inside the map; 0 replaces the map's values.
        out: float32 [C, H, W], C-contiguous; changed under the patches.

    Raises:
        ValueError: a shape or dtype differs from the above, a corner leaves the map, or the ramp is negative.

    Source: reference.blend_patches is the definition.
    """
    check_blend(found, corners, ramp, out)
    weights = ramp_weights(corners, found.shape[2], ramp, (out.shape[1], out.shape[2]))
    given, blended = map(device.to_device, (found, corners, *weights)), device.to_device(out)
    device.launch(_blend, out.size, *given, blended)
    if isinstance(out, np.ndarray):
        device.to_host(blended, out)


def _bounds(weights: Doubles) -> Bounds:
    """Return each patch's first value of the axis that counts, and the one behind the last: int64 [patches, 2]."""
    counts = weights != 0
    return np.stack([counts.argmax(axis=1), weights.shape[1] - counts[:, ::-1].argmax(axis=1)], axis=1)


@device.kernel
def _means(values: Floats, rows: Doubles, tall: Bounds, columns: Doubles, wide: Bounds, out: Doubles) -> None:
    _, down, across = out.shape
    for task in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        n, i, j = task // (down * across), task // across % down, task % across
        total = np.float64(0)
        for y in range(tall[i, 0], tall[i, 1]):
            along = np.float64(0)
            for x in range(wide[j, 0], wide[j, 1]):
                along += columns[j, x] * np.float64(values[n, y, x])
            total += rows[i, y] * along
        out[n, i, j] = total


@device.kernel
def _gather(picture: Bytes, corners: Corners, table: Floats, out: Floats) -> None:
    height, width, _ = picture.shape
    _, channels, tall, wide = out.shape
    for task in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        x, row = task % wide, task // wide % tall
        c, n = task // (wide * tall) % channels, task // (wide * tall * channels)
        top, left = corners[n, 0] + row, corners[n, 1] + x
        value = 0
        if top < height and left < width:
            value = picture[top, left, c]
        out[n, c, row, x] = table[c, value]


@device.kernel
def _blend(found: Floats, corners: Corners, rows: Floats, columns: Floats, out: Floats) -> None:
    count, _, side, _ = found.shape
    _, height, width = out.shape
    zero, one = np.float32(0), np.float32(1)
    for task in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        c, y, x = task // (height * width), task // width % height, task % width
        total, weighted = zero, zero
        for n in range(count):
            row, column = y - corners[n, 0], x - corners[n, 1]
            if 0 <= row < side and 0 <= column < side:
                weight = product(rows[n, row], columns[n, column])
                total += weight
                weighted += product(weight, found[n, c, row, column])
        if total > zero:
            kept = product(max(zero, one - total), out[c, y, x])
            out[c, y, x] = (weighted + kept) / max(one, total)
