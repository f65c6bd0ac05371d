"""Uncompressed COCO run lengths: column-major, first run counts zeros."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class Rle(TypedDict):
    """`size` is [height, width]; `counts` alternate background and foreground, starting with background."""

    size: list[int]
    counts: list[int]


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """Encode a bool [H, W] mask as run lengths, as segment_anything's mask_to_rle_pytorch writes them."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(edges, prepend=0, append=flat.size).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat.size and flat[0] else counts}


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """Decode run lengths to a bool [H, W] mask.

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
    """Count the foreground pixels."""
    return sum(rle["counts"][1::2])


def decode_part(rle: Rle, part_xywh: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Decode the part of a mask in a box: bool [height, width], C-contiguous; the rest of the mask is not made."""
    x, y, width, height = part_xywh
    columns, tops, bottoms = _column_runs(rle)
    tops, bottoms = np.clip(tops - y, 0, height), np.clip(bottoms - y, 0, height)
    seen = (columns >= x) & (columns < x + width) & (tops < bottoms)
    columns, tops, bottoms = columns[seen] - x, tops[seen], bottoms[seen]
    # Runs of one column never touch, so no place is counted twice.
    edges = np.zeros((height + 1, width), np.int8)
    edges[tops, columns] = 1
    edges[bottoms, columns] -= 1
    return np.cumsum(edges[:-1], axis=0, dtype=np.int8).astype(np.bool_)


def move_rle(rle: Rle, corner_xy: tuple[int, int], size_hw: tuple[int, int]) -> Rle:
    """Place a mask in a larger image, without making either of them."""
    height, width = size_hw
    columns, tops, bottoms = _column_runs(rle)
    starts = (columns + corner_xy[0]) * height + tops + corner_xy[1]
    edges = np.stack([starts, starts + bottoms - tops], axis=1).ravel()
    # A run that reaches the foot of a column goes on at the head of the next.
    joined = np.flatnonzero(edges[1:] == edges[:-1])
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    if edges.size and edges[-1] == height * width:
        counts.pop()  # the last run ends with the image: there is no background after it
    return {"size": [height, width], "counts": counts}


def _column_runs(rle: Rle) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut foreground runs at the ends of columns: column, first row, and row after the last, int64 [R] each."""
    height = rle["size"][0]
    ends = np.cumsum(np.asarray(rle["counts"], np.int64))
    starts, stops = ends[0::2][: ends.size // 2], ends[1::2]
    full = stops > starts
    starts, stops = starts[full], stops[full]
    first, last = starts // height, (stops - 1) // height
    pieces = last - first + 1
    run = np.repeat(np.arange(starts.size), pieces)
    column = first[run] + np.arange(run.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    tops = np.where(column == first[run], starts[run] - column * height, 0)
    bottoms = np.where(column == last[run], stops[run] - column * height, height)
    return column, tops, bottoms
