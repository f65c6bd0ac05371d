"""Uncompressed COCO run lengths: column-major, first run counts zeros."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class Rle(TypedDict):
    """`size` is [height, width]; `counts` alternate background and foreground, starting with background."""

    size: list[int]
    counts: list[int]


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """Run lengths of a bool [H, W] mask, as segment_anything's mask_to_rle_pytorch writes them."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(edges, prepend=0, append=flat.size).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat.size and flat[0] else counts}


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """The bool [H, W] mask of run lengths.

    Raises:
        ValueError: the runs do not add up to height * width.
    """
    height, width = rle["size"]
    counts = np.asarray(rle["counts"], dtype=np.int64)
    if counts.sum() != height * width or (counts < 0).any():
        raise ValueError(f"RLE runs add up to {counts.sum()}, expected {height} x {width} = {height * width}")
    flat = np.repeat(np.arange(counts.size) % 2 == 1, counts)
    return flat.reshape(width, height).T


def rle_area(rle: Rle) -> int:
    """Foreground pixels."""
    return sum(rle["counts"][1::2])
