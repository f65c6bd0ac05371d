"""Scores of label pictures: per class and as the mean over classes, pooled over all pixels and per image."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.compare import PER_IMAGE, POOLED, Comparison
from maskrt.runtime.evaluation.metrics import Confusion, Metrics
from maskrt.runtime.io.masks import read_labels
from maskrt.runtime.types import Labels

SHOWN = 8  # unknown numbers that an error names


class ClassFigures(msgspec.Struct, frozen=True):
    """Scores of one class, or their mean over classes; NaN where undefined, see maskrt.runtime.evaluation.metrics."""

    iou: float
    dice: float
    precision: float
    recall: float


class MethodFigures(msgspec.Struct, frozen=True):
    """Scores of one method. classes: name -> scores; mean: over the classes in which a score is defined."""

    classes: dict[str, ClassFigures]
    mean: ClassFigures


def check_numbers(labels: Labels, classes: tuple[str, ...], source: str) -> None:
    """Check that a label picture has no other numbers than those of the classes.

    Raises:
        InputError: it has; the message names them, and the classes.
    """
    counts = np.bincount(labels.ravel())
    unknown = [number for number in np.flatnonzero(counts).tolist() if number >= len(classes)]
    if unknown:
        shown = ", ".join(map(str, unknown[:SHOWN])) + (", ..." if len(unknown) > SHOWN else "")
        known = ", ".join(f"{number} {name}" for number, name in enumerate(classes))
        raise InputError(
            f"{source} has the class numbers {shown}, and the bundle has {known}: number the truth like the bundle, or "
            "leave --labels out if it is a mask"
        )


@dataclass
class ClassScores:
    """Every class of every method, over the images added. Each class is scored as a mask against all others."""

    methods: tuple[str, ...]
    classes: tuple[str, ...]
    images: int = 0
    confusions: dict[str, list[Confusion]] = field(init=False)

    def __post_init__(self) -> None:
        self.confusions = {method: [Confusion() for _ in self.classes] for method in self.methods}

    def read(self, path: Path, max_pixels: int) -> Labels:
        """Read a truth, uint8 or uint16 [H, W].

        Raises:
            InputError: see read_labels; or it has a number that is no class.
        """
        labels = read_labels(path, max_pixels)
        check_numbers(labels, self.classes, str(path))
        return labels

    def add(self, compared: Comparison) -> None:
        """Count one image.

        Raises:
            InputError: the kind of bundle compares masks of one class only.
        """
        if compared.truth_labels is None or set(compared.labels) != set(self.methods):
            raise InputError("this kind of bundle is scored on masks of one class: leave --labels out")
        self.images += 1
        for method, confusions in self.confusions.items():
            found = compared.labels[method]
            for number, confusion in enumerate(confusions):
                confusion.add(compared.truth_labels == number, found == number)

    def figures(self) -> dict[str, dict[str, MethodFigures]]:
        """Return "pooled" over all pixels, and "per_image", the mean of the images' values: method -> scores.

        Dice is F1 where it is pooled. Per image it is image_dice, which is 1 where truth and answer lack the class; the
        other scores leave such images out.
        """
        return {
            POOLED: self._figures(lambda confusion: _pooled(confusion.metrics())),
            PER_IMAGE: self._figures(lambda confusion: _per_image(confusion.per_image())),
        }

    def _figures(self, of: Callable[[Confusion], ClassFigures]) -> dict[str, MethodFigures]:
        found = {}
        for method, confusions in self.confusions.items():
            scores = [of(confusion) for confusion in confusions]
            means = {name: _mean([getattr(one, name) for one in scores]) for name in ClassFigures.__struct_fields__}
            found[method] = MethodFigures(dict(zip(self.classes, scores, strict=True)), ClassFigures(**means))
        return found


def _pooled(scores: Metrics) -> ClassFigures:
    return ClassFigures(scores.iou, scores.f1, scores.precision, scores.recall)


def _per_image(scores: Metrics) -> ClassFigures:
    return ClassFigures(scores.iou, scores.dice, scores.precision, scores.recall)


def _mean(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
