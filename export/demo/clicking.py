"""Users who click while the demo SAM learns: on an object, then on an error of its mask, turn after turn."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskrt.export.demo.prompts import STRIDE, Batch
from maskrt.export.demo.scenes_data import IGNORE
from maskrt.kernels.arrays import Mask

TURNS = (1, 6)  # fewest and most of an episode
SHARE_BOXES, SHARE_ROUGH, SHARE_CENTRES, SHARE_UNHINTED = 0.15, 0.35, 0.5, 0.15
EARLIER = 14  # clicks that may have led to a rough mask
WOBBLE = 0.1  # deviation of a box's corners, as a share of its sides


@dataclass
class Episode:
    """A picture, and the prompts so far for P of its objects.

    embedding: float32 [1, C, e, e]; targets: float32 [P, h, w], the share of each cell that the object covers;
    visible: bool [h, w], false beyond the picture; points: float32 [P, N, 2], x and y in the encoder's pixels, and
    labels int64 [P, N], 1 or 0; boxes: float32 [P, 4]; hint: float32 [P, 1, h, w], the mask prompt as logits; turns:
    how many are left; logits: float32 [P, h, w], the answer, which the trained network writes.
    """

    embedding: Tensor
    targets: Tensor
    visible: Mask
    points: Tensor
    labels: Tensor
    boxes: Tensor | None
    turns: int
    hint: Tensor | None = None
    logits: Tensor | None = None

    @property
    def ambiguous(self) -> bool:
        """Whether the prompt is a single point without a mask: the only one that several masks answer."""
        return self.boxes is None and self.hint is None and self.labels.shape[1] == 1


def begin(batch: Batch, embedding: Tensor, rng: np.random.Generator) -> Episode:
    """Start with a point in every object, a box around each, or a rough mask with earlier clicks and a correction.

    The rough masks teach the network to keep a mask prompt where no click says otherwise. From its own answers alone,
    which hold little that the clicks do not, it learnt to ignore them: after 900 steps the truth itself as the prompt
    gave an IoU of 0.71.
    """
    targets, points, labels = batch["targets"], batch["points"], batch["labels"]
    turns = int(rng.integers(TURNS[0], TURNS[1] + 1)) - 1
    visible = (batch["kinds"][0] != IGNORE).numpy()
    start = Episode(embedding, targets, visible, points, labels, None, turns)
    kind = rng.random()
    if kind < SHARE_BOXES:
        boxes = torch.from_numpy(np.stack([rough_box(truth, rng) for truth in truths(targets)]))
        return replace(start, boxes=boxes, points=points[:, :0], labels=labels[:, :0])
    if kind < SHARE_BOXES + SHARE_ROUGH:
        start.logits = torch.from_numpy(np.stack([rough_logits(truth, rng) for truth in truths(targets)]))
        points, labels = earlier_clicks(truths(targets), visible, int(rng.integers(EARLIER + 1)), rng)
        earlier = replace(start, points=points, labels=labels)
        return replace(go_on(earlier, rng), hint=start.logits[:, None], turns=turns)
    for index, truth in enumerate(truths(targets)):
        if rng.random() < SHARE_CENTRES:
            points[index, 0] = torch.from_numpy(place(innermost(truth)[1], truth.shape[1], rng))
    return start


def go_on(episode: Episode, rng: np.random.Generator) -> Episode:
    """Take the next turn: one more click for every object and, most of the time, the last answer as the mask prompt."""
    assert episode.logits is not None, "an episode goes on from its answer"
    answers = (episode.logits > 0).numpy()
    clicks = [
        correct(truth, answer & episode.visible, rng)
        for truth, answer in zip(truths(episode.targets), answers, strict=True)
    ]
    width = episode.visible.shape[1]
    points = torch.from_numpy(np.stack([place(cell, width, rng) for cell, _ in clicks]))[:, None]
    labels = torch.tensor([int(positive) for _, positive in clicks])[:, None]
    return replace(
        episode,
        points=torch.cat([episode.points, points], 1),
        labels=torch.cat([episode.labels, labels], 1),
        turns=episode.turns - 1,
        hint=None if rng.random() < SHARE_UNHINTED else episode.logits[:, None],
        logits=None,
    )


def correct(truth: Mask, answer: Mask, rng: np.random.Generator) -> tuple[int, bool]:
    """Return the cell of the next click, and whether the object is there.

    It is either the innermost wrong cell, as people click, or any wrong cell, as SAM was trained. Where nothing is
    wrong, it lies inside the object.
    """
    missed, surplus = truth & ~answer, answer & ~truth
    wrong = missed | surplus
    if not wrong.any():
        return int(rng.choice(np.flatnonzero(truth))), True
    if rng.random() >= SHARE_CENTRES:
        cell = int(rng.choice(np.flatnonzero(wrong)))
        return cell, bool(missed.flat[cell])
    (depth, inside), (other, outside) = innermost(missed), innermost(surplus)
    return (inside, True) if depth > other else (outside, False)


def earlier_clicks(
    objects: NDArray[np.bool_], visible: Mask, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw points float32 [P, count, 2], in turns in the object and around it, and their labels int64 [P, count].

    With them, few turns show the network many clicks.
    """
    points = np.zeros((len(objects), count, 2), np.float32)
    for own, truth in zip(points, objects, strict=True):
        reach = 2 * int(np.sqrt(truth.sum())) + 3
        around = cv2.dilate(truth.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
        outside = around & ~truth & visible
        for number in range(count):
            region = outside if number % 2 and outside.any() else truth
            own[number] = place(int(rng.choice(np.flatnonzero(region))), truth.shape[1], rng)
    columns, rows = np.moveaxis((points / STRIDE).astype(np.int64), -1, 0)
    labels = objects[np.arange(len(objects))[:, None], rows, columns]
    return torch.from_numpy(points), torch.from_numpy(labels.astype(np.int64))


def innermost(region: Mask) -> tuple[float, int]:
    """Return the largest distance of a cell to the region's outside, and that cell's flat index."""
    padded = cv2.copyMakeBorder(region.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    cell = int(distance.argmax())
    return float(distance.flat[cell]), cell


def rough_box(truth: Mask, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return corners x0, y0, x1, y1, inclusive, in the encoder's pixels, as a hand would draw them."""
    rows, columns = np.nonzero(truth)
    corners = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * STRIDE
    sides = np.tile(corners[2:] - corners[:2], 2)
    corners = corners + rng.normal(0, WOBBLE, 4).clip(-2 * WOBBLE, 2 * WOBBLE) * sides
    inside = (corners - [0, 0, 1, 1]).clip(0, STRIDE * np.tile(truth.shape[::-1], 2) - 1)
    return np.asarray(inside.round(), np.float32)


def rough_logits(truth: Mask, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a mask that lacks parts of the object and has surplus parts, as logits float32 [h, w]."""
    rows, columns = np.nonzero(truth)
    mask, reach = truth.astype(np.uint8), max(2.0, float(np.sqrt(len(rows))))
    for _ in range(rng.integers(1, 4)):
        middle = rng.integers(len(rows))
        centre = np.array([columns[middle], rows[middle]]) + rng.normal(0, 0.3 * reach, 2)
        radii = reach * rng.uniform(0.1, 0.6, 2) + 0.5
        value = int(rng.random() < 0.5)
        cv2.ellipse(mask, (centre.tolist(), (2 * radii).tolist(), float(rng.uniform(0, 180))), value, cv2.FILLED)
    signs = cv2.GaussianBlur(2 * mask.astype(np.float32) - 1, (0, 0), rng.uniform(0.3, 1.5))
    return np.asarray(signs * np.float32(rng.uniform(4, 15)), np.float32)


def place(cell: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Choose a pixel of a cell, x and y; width: cells in a row."""
    row, column = divmod(cell, width)
    return np.asarray(STRIDE * np.array([column, row]) + rng.integers(0, STRIDE, 2), np.float32)


def truths(targets: Tensor) -> NDArray[np.bool_]:
    """Return bool [P, h, w]: each object's cells, or where none is half full, those that it fills most."""
    most = targets.amax((1, 2), keepdim=True)
    return (targets > 0.5 * most).numpy()
