"""Connected regions in Numba: a union-find over the runs of each row, so memory grows with runs, not pixels."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Mask
from maskrt.kernels.checks import check_array
from maskrt.kernels.jit import kernel
from maskrt.kernels.regions.reference import Mode, check_mask

Indices = NDArray[np.int32]


def remove_small_regions(mask: Mask, min_area: int, mode: Mode, out: Mask) -> bool:
    """Fill 8-connected background regions ("holes") or drop foreground ones ("islands") smaller than `min_area`.

    When every island is smaller, the largest stays; reference.py says which of equally large ones.

    Args:
        mask: bool [H, W], C-contiguous.
        min_area: pixels; regions with fewer are removed.
        mode: "holes" or "islands".
        out: bool [H, W], C-contiguous, overwritten, also when nothing is small; may be `mask` itself.

    Returns:
        Whether any region was smaller, as upstream reports it: true also when the only island was too small and stayed.

    Raises:
        ValueError: a shape, dtype or the mode differs from the above.

    Source: reference.remove_small_regions is the definition.
    """
    check_mask(mask, mode, out)
    wanted = mode == "islands"
    runs = _joined_runs(mask, wanted)
    out[:] = mask
    return bool(_clear_small(*runs, min_area, wanted, out))


def region_boxes(mask: Mask) -> NDArray[np.int64]:
    """Return the box of every 8-connected foreground region.

    Args:
        mask: bool [H, W], C-contiguous.

    Returns:
        int64 [N, 4]: y0, x0 and, exclusive, y1, x1, in the order of the regions' first pixels.

    Raises:
        ValueError: a shape or dtype differs from the above.

    Source: reference.region_boxes is the definition.
    """
    check_array("mask", mask, np.bool_, (None, None))
    rows, starts, stops, root = _joined_runs(mask, True)
    boxes = np.empty((root.size, 4), np.int64)
    _grow_boxes(rows, starts, stops, root, boxes)
    found: NDArray[np.int64] = boxes[root == np.arange(root.size)]
    return found


def _joined_runs(mask: Mask, wanted: bool) -> tuple[Indices, Indices, Indices, Indices]:
    """Find the runs of `wanted` pixels in each row, and join those of a region.

    Returns:
        rows [H + 1], the first run of each row; starts and stops of the runs; and the first run of each one's region.
    """
    rows = np.zeros(mask.shape[0] + 1, np.int32)
    _count_runs(mask, wanted, rows)
    np.cumsum(rows, out=rows)
    starts, stops = np.empty((2, rows[-1]), np.int32)
    _find_runs(mask, wanted, rows, starts, stops)
    root = np.arange(rows[-1], dtype=np.int32)
    _join_runs(rows, starts, stops, root)
    return rows, starts, stops, root


@kernel
def _count_runs(mask: Mask, wanted: bool, rows: Indices) -> None:
    """Set rows[y + 1] to the number of runs in row y."""
    for y in range(mask.shape[0]):
        count = 0
        previous = not wanted
        for x in range(mask.shape[1]):
            count += mask[y, x] == wanted and previous != wanted
            previous = mask[y, x]
        rows[y + 1] = count


@kernel
def _find_runs(mask: Mask, wanted: bool, rows: Indices, starts: Indices, stops: Indices) -> None:
    width = mask.shape[1]
    for y in range(mask.shape[0]):
        run = rows[y]
        previous = not wanted
        for x in range(width):
            if mask[y, x] != previous:
                if mask[y, x] == wanted:
                    starts[run] = x
                else:
                    stops[run] = x
                    run += 1
            previous = mask[y, x]
        if previous == wanted and width > 0:
            stops[run] = width


@kernel
def _root_of(root: Indices, run: int) -> int:
    while root[run] != run:
        root[run] = root[root[run]]  # path halving keeps the trees flat
        run = root[run]
    return run


@kernel
def _join_runs(rows: Indices, starts: Indices, stops: Indices, root: Indices) -> None:
    """Set root[run] to the first run of its region, in raster order."""
    for y in range(1, rows.size - 1):
        above, run = rows[y - 1], rows[y]
        while above < rows[y] and run < rows[y + 1]:
            # Touching by a corner counts, hence <= on exclusive stops.
            if starts[above] <= stops[run] and starts[run] <= stops[above]:
                a, b = _root_of(root, above), _root_of(root, run)
                root[max(a, b)] = min(a, b)
            if stops[above] < stops[run]:
                above += 1
            else:
                run += 1
    for run in range(root.size):
        root[run] = root[root[run]]  # parents come first, so one step is enough


@kernel
def _clear_small(
    rows: Indices, starts: Indices, stops: Indices, root: Indices, min_area: int, wanted: bool, out: Mask
) -> bool:
    columns = (out.shape[1] + 1) // 2
    area = np.zeros(root.size, np.int64)
    block = np.full(root.size, np.iinfo(np.int64).max)
    for y in range(rows.size - 1):
        for run in range(rows[y], rows[y + 1]):
            area[root[run]] += stops[run] - starts[run]
            block[root[run]] = min(block[root[run]], y // 2 * columns + starts[run] // 2)
    largest = -1
    changed = False
    for run in range(root.size):
        if root[run] == run:
            changed |= area[run] < min_area
            if largest < 0 or area[run] > area[largest] or (area[run] == area[largest] and block[run] < block[largest]):
                largest = run
    if not wanted:
        largest = -1  # a hole never has to stay
    elif largest >= 0 and area[largest] >= min_area:
        largest = -1
    for y in range(rows.size - 1):
        for run in range(rows[y], rows[y + 1]):
            if area[root[run]] < min_area and root[run] != largest:
                out[y, starts[run] : stops[run]] = not wanted
    return changed


@kernel
def _grow_boxes(rows: Indices, starts: Indices, stops: Indices, root: Indices, boxes: NDArray[np.int64]) -> None:
    """Set boxes[run] to the box of the region whose first run it is."""
    for y in range(rows.size - 1):
        for run in range(rows[y], rows[y + 1]):
            box = boxes[root[run]]
            if root[run] == run:
                box[0], box[1], box[3] = y, starts[run], stops[run]
            box[1], box[2], box[3] = min(box[1], starts[run]), y + 1, max(box[3], stops[run])
