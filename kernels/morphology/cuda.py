"""Dilation on a GPU, with a thread for every pixel that may be a point."""

from numba import cuda

from maskrt.kernels import device
from maskrt.kernels.arrays import Indices, Mask
from maskrt.kernels.morphology.reference import check_dilate


def dilate(points: Mask, reach: Indices, out: Mask) -> None:
    """Mark every pixel that a shape covers when it is laid on a point.

    Args:
        points: bool [H, W], C-contiguous; few points, such as a contour, take the least time. May be on the device.
        reach: int64 [2 * r + 1], how far each of the shape's rows, from r above to r below, extends on either side.
        out: bool [H, W], C-contiguous, overwritten. May be on the device.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: reference.dilate is the definition.
    """
    check_dilate(points, reach, out)
    with device.written(out) as dilated:
        device.launch(_clear, out.size, dilated)
        device.launch(_dilate, out.size, device.to_device(points), device.to_device(reach), dilated)


@device.kernel
def _clear(out: Mask) -> None:
    for task in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[task // out.shape[1], task % out.shape[1]] = False


@device.kernel
def _dilate(points: Mask, reach: Indices, out: Mask) -> None:
    height, width = points.shape
    radius = reach.size // 2
    for task in range(cuda.grid(1), points.size, cuda.gridsize(1)):
        y, x = task // width, task % width
        if points[y, x]:
            for row in range(max(0, y - radius), min(height, y + radius + 1)):
                span = reach[row - y + radius]
                # Shapes overlap: all that threads write is true, in whatever order.
                for at in range(max(0, x - span), min(width, x + span + 1)):
                    out[row, at] = True
