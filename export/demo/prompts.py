"""Batches of pictures with point prompts and their masks."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskrt.export.architectures.sam import PIXEL_MEAN, PIXEL_STD
from maskrt.export.demo.scenes_data import GROUND, OUTSIDE, View, jitter

STRIDE = 4  # pixels of the picture per cell of low_res_masks
Batch = dict[str, Tensor]
Draw = Callable[[np.random.Generator], View]


def batches(draw: Draw, kinds: Sequence[str], pictures: int, prompts: int, seed: int) -> Iterator[Batch]:
    """Yield batches without end. A thread draws the next one while the last one trains."""
    with ThreadPoolExecutor(1) as pool:
        step = 0
        ahead = pool.submit(draw_batch, draw, kinds, pictures, prompts, (seed, step))
        while True:
            step += 1
            current, ahead = ahead, pool.submit(draw_batch, draw, kinds, pictures, prompts, (seed, step))
            yield current.result()


def draw_batch(draw: Draw, kinds: Sequence[str], pictures: int, prompts: int, seed: tuple[int, int]) -> Batch:
    """Draw pictures, each with random prompts.

    Args:
        draw: draws a square picture, always of one size.
        kinds: all kinds of objects.

    Returns:
        images float32 [B, 3, S, S] normalised; points float32 [B * P, 1, 2], x and y in pixels; labels int64
        [B * P, 1]; targets float32 [B * P, S/4, S/4], the share of each cell that the prompted object covers; cells
        int64 [B, P], flat index of the prompted cell; kinds int64 [B, S/4, S/4], index into `kinds` of the object at
        each cell's centre, IGNORE beyond the picture; boxes float32 [B, 4, S/4, S/4], that object's box.
    """
    rng = np.random.default_rng(seed)
    images, points, targets, cells, drawn, boxes = [], [], [], [], [], []
    for _ in range(pictures):
        view = draw(rng)
        visible = (view.instances != OUTSIDE)[..., None]
        normalised = (
            (jitter(view.rgb, rng) - np.array(PIXEL_MEAN, np.float32)) / np.array(PIXEL_STD, np.float32) * visible
        )
        images.append(normalised.transpose(2, 0, 1))
        xy, identities = _draw_points(view, prompts, rng)
        targets.append(_coverage(view.instances, identities))
        cells.append(xy[:, 1] // STRIDE * (len(view.rgb) // STRIDE) + xy[:, 0] // STRIDE)
        points.append(xy)
        drawn.append(view.kinds(kinds, STRIDE))
        boxes.append(view.boxes(STRIDE))
    return {
        "images": torch.from_numpy(np.stack(images)),
        "points": torch.from_numpy(np.concatenate(points).astype(np.float32))[:, None],
        "labels": torch.ones(pictures * prompts, 1, dtype=torch.int64),
        "targets": torch.from_numpy(np.concatenate(targets)),
        "cells": torch.from_numpy(np.stack(cells)),
        "kinds": torch.from_numpy(np.stack(drawn)),
        "boxes": torch.from_numpy(np.stack(boxes)),
    }


def _draw_points(view: View, prompts: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Draw objects by area to the power 0.75, so that small ones count, and a uniform pixel of each."""
    flat = view.instances.ravel()
    order = np.argsort(flat, kind="stable")  # radix sort on uint16
    identities, starts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    grounds = [identity for identity, drawn in view.objects.items() if drawn.kind == GROUND]
    wanted = ~np.isin(identities, [OUTSIDE, *grounds]) & (counts >= 60)
    weights = np.where(wanted, counts.astype(np.float64) ** 0.75, 0)
    chosen = rng.choice(identities.size, size=prompts, p=weights / weights.sum())
    y, x = np.divmod(order[starts[chosen] + rng.integers(0, counts[chosen])], view.instances.shape[1])
    return np.stack([x, y], 1), identities[chosen]


def _coverage(instances: NDArray[np.uint16], identities: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the share of every 4 x 4 cell that each object covers, float32 [P, S/4, S/4]."""
    size = instances.shape[0] // STRIDE
    cells = instances.reshape(size, STRIDE, size, STRIDE).transpose(0, 2, 1, 3).reshape(size, size, -1)
    wanted, which = np.unique(identities, return_inverse=True)
    # One mask per distinct object: prompts of a window share a handful of them.
    shares = np.stack([(cells == identity).sum(-1, dtype=np.uint8) for identity in wanted])
    return np.asarray((shares / np.float32(STRIDE * STRIDE))[which], np.float32)
