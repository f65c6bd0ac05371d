"""Pixel-wise scores of a binary mask against the truth, for the positive class.

A score whose denominator is zero is NaN, and null in JSON: precision when nothing was predicted, recall when nothing is
true, and so on. It is never set to 0 or 1, because either would be a claim. Dice alone has a convention, see
image_dice.
"""

import math
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError


class Metrics(msgspec.Struct, frozen=True):
    """Scores between 0 and 1, or NaN where undefined.

    auc is the area under the ROC of the hard mask, a curve with one corner: (recall + specificity) / 2. It is no
    threshold sweep. Each column of Table I of the source document fits one confusion matrix: its accuracy, precision
    and recall give the share of positive pixels, and with that its F1, IoU and, by this definition, AUC (88.9 and
    92.6). The shares are 0.53 for the segmenter and 0.46 for SOSS, though, which one test set cannot have both. So the
    table does not show whether the document pools pixels or averages images, and its text does not say.

    dice is the mean of image_dice over pictures also where the other scores are pooled: in dice, a picture with little
    to find counts as much as one that is full of it. It is NaN without a picture.

    Source: "Hybrid Deep Learning-Based for Enhanced Occlusion Segmentation in PICU Patient Monitoring", section IV-A.
    """

    accuracy: float
    f1: float
    precision: float
    recall: float
    iou: float
    auc: float
    dice: float = math.nan


@dataclass
class Confusion:
    """Pixel counts, pooled over the images added, and the sums of the scores that each image has for itself.

    sums: score -> sum over the images in which it is defined; defined: score -> how many those are.
    """

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0
    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    defined: dict[str, int] = field(default_factory=dict)

    def add(self, truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> None:
        """Count one image; both masks are bool of the same shape.

        Raises:
            InputError: a dtype or the shapes differ.
        """
        if truth.dtype != np.bool_ or predicted.dtype != np.bool_ or truth.shape != predicted.shape:
            raise InputError(
                f"masks to compare must be bool and of one size, got truth {truth.dtype} {list(truth.shape)} "
                f"and prediction {predicted.dtype} {list(predicted.shape)}"
            )
        both = int(np.count_nonzero(truth & predicted))
        true, positive = int(np.count_nonzero(truth)), int(np.count_nonzero(predicted))
        counts = both, positive - both, true - both, truth.size - true - positive + both
        self.true_positive += counts[0]
        self.false_positive += counts[1]
        self.false_negative += counts[2]
        self.true_negative += counts[3]
        self.images += 1
        for name, score in msgspec.structs.asdict(_metrics(*counts, image_dice(truth, predicted))).items():
            if not math.isnan(score):
                self.sums[name] = self.sums.get(name, 0.0) + score
                self.defined[name] = self.defined.get(name, 0) + 1

    def metrics(self) -> Metrics:
        """Return the scores of all pixels counted so far, pooled."""
        counts = self.true_positive, self.false_positive, self.false_negative, self.true_negative
        return _metrics(*counts, self.per_image().dice)

    def per_image(self) -> Metrics:
        """Return the mean of the images' scores; an image in which a score is undefined does not count for it."""
        return Metrics(
            **{name: _ratio(self.sums.get(name, 0.0), self.defined.get(name, 0)) for name in Metrics.__struct_fields__}
        )


def image_dice(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Return 2 |both| / (|truth| + |predicted|) of an image; 1 with nothing to find and nothing found.

    Nothing is added above or below, so a truth of one pixel that is missed scores 0. An image in which both masks are
    empty is right, and counts 1 in a mean over images.

    Source: "Two-stage Semantic Segmentation in Neural Networks", section 4.3. Its public code adds 1 above and below,
    which gives that pixel 0.5, and takes probabilities in place of masks, so its numbers differ.
    """
    both = int(np.count_nonzero(truth & predicted))
    either = int(np.count_nonzero(truth)) + int(np.count_nonzero(predicted))
    return 2 * both / either if either else 1.0


def binary_metrics(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Metrics:
    """Return the scores of one image; both masks are bool of the same shape.

    Raises:
        InputError: a dtype or the shapes differ.
    """
    confusion = Confusion()
    confusion.add(truth, predicted)
    return confusion.metrics()


def _metrics(tp: int, fp: int, fn: int, tn: int, dice: float) -> Metrics:
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return Metrics(
        accuracy=_ratio(tp + tn, tp + fp + fn + tn),
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        precision=_ratio(tp, tp + fp),
        recall=recall,
        iou=_ratio(tp, tp + fp + fn),
        auc=(recall + specificity) / 2,
        dice=dice,
    )


def _ratio(numerator: float, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
