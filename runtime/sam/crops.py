"""Overlapping crops of an image, layer by layer; SAM searches each crop as if it were an image of its own.

Source: segment_anything.utils.amg, which defines every number here.
"""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Crop = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the image, the last two exclusive

EDGE_TOLERANCE = 20  # pixels; a box as close to the edge of a crop counts as an object that the crop cuts


def crop_boxes(size_hw: tuple[int, int], layers: int, overlap_ratio: float) -> list[tuple[int, Crop]]:
    """Return the whole image as layer 0, then 4^i crops for every further layer i.

    Args:
        size_hw: size of the image.
        layers: number of further layers, 0 or more.
        overlap_ratio: overlap of neighbouring crops in layer 1, as a share of the image's shorter side; each further
            layer halves it.

    Returns:
        Pairs (layer, crop) in upstream's order: column by column within a layer.
    """
    height, width = size_hw
    crops: list[tuple[int, Crop]] = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(size_hw) * (2 / per_side))
        crop_width, crop_height = (math.ceil((overlap * (per_side - 1) + side) / per_side) for side in (width, height))
        for column, row in itertools.product(range(per_side), range(per_side)):
            x0, y0 = (crop_width - overlap) * column, (crop_height - overlap) * row
            if x0 < width and y0 < height:  # an image of a few pixels has fewer crops; upstream fails there
                crops.append((layer, (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height))))
    return crops


def cut_by_crop(boxes_xyxy: NDArray[np.int32], crop: Crop, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Return bool [N]: whether the crop cuts the object in each box.

    A box, int32 [N, 4] in pixels of the crop, is cut if it lies at an edge of the crop that is no edge of the image.
    """
    x0, y0, _, _ = crop
    boxes = boxes_xyxy + np.array([x0, y0, x0, y0], np.int32)
    near_crop = np.abs(boxes - np.array(crop)) <= EDGE_TOLERANCE
    near_image = np.abs(boxes - np.array([0, 0, size_hw[1], size_hw[0]])) <= EDGE_TOLERANCE
    cut: NDArray[np.bool_] = (near_crop & ~near_image).any(axis=1)
    return cut
