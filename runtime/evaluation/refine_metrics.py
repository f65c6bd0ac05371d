"""IoU and mean boundary accuracy (mBA), by which the public code scores refiners.

Source: util/compute_boundary_acc.py and eval_post1.0.py of the public code of CRM, which follow CascadePSP.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from maskrt.kernels import sets
from maskrt.kernels.arrays import Mask
from maskrt.kernels.morphology.reference import contour, ellipse
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.metrics import image_dice

STEPS = 5


def boundary_accuracy(truth: Mask, mask: Mask, kernels: KernelSet = sets.CPU) -> float:
    """Return the share of right pixels near the truth's boundary, as the mean over five widths, 1 to (H + W) / 300.

    A width's region is the morphological gradient of the truth: the pixels for which OpenCV's elliptical kernel of that
    radius covers both labels.

    Args:
        truth, mask: bool [H, W].

    Returns:
        0 to 1; NaN if the truth has no boundary.

    Raises:
        InputError: the masks are not bool, or not of one size.
    """
    check_masks(truth, mask)
    edges = contour(truth)
    right = truth == mask
    shares = []
    for radius in radii(truth.shape):
        # A pixel sees the other label if a contour pixel of that label is within reach.
        region = np.zeros_like(truth)
        near = np.empty_like(truth)
        for label in (True, False):
            kernels.dilate(edges & (truth == label), ellipse(radius), near)
            region |= near & (truth != label)
        count = np.count_nonzero(region)
        shares.append(np.count_nonzero(right & region) / count if count else math.nan)
    return float(np.mean(shares))


def radii(shape: tuple[int, ...]) -> list[int]:
    """Return the radii of the five widths, in pixels."""
    largest = (shape[0] + shape[1]) / 300
    return [1 + int((largest - 1) / STEPS * step) for step in range(STEPS)]


@dataclass
class RefineScores:
    """IoU pooled over the pictures added, and the means of their Dice (image_dice) and their boundary accuracies.

    without_boundary: pictures whose truth has no boundary; they do not count for the boundary accuracy.
    """

    intersection: int = 0
    union: int = 0
    dices: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    without_boundary: int = 0

    def add(self, truth: Mask, mask: Mask) -> None:
        """Score one picture; both bool [H, W].

        Raises:
            InputError: see boundary_accuracy.
        """
        accuracy = boundary_accuracy(truth, mask)
        self.intersection += int(np.count_nonzero(truth & mask))
        self.union += int(np.count_nonzero(truth | mask))
        self.dices.append(image_dice(truth, mask))
        if math.isnan(accuracy):
            self.without_boundary += 1
        else:
            self.accuracies.append(accuracy)

    @property
    def iou(self) -> float:
        """0 to 1; NaN when neither truth nor masks have a pixel."""
        return self.intersection / self.union if self.union else math.nan

    @property
    def dice(self) -> float:
        """0 to 1; NaN without a picture."""
        return float(np.mean(self.dices)) if self.dices else math.nan

    @property
    def mba(self) -> float:
        """0 to 1; NaN without a boundary."""
        return float(np.mean(self.accuracies)) if self.accuracies else math.nan


def check_masks(truth: Mask, mask: Mask) -> None:
    """Raise InputError unless both are bool and of one size."""
    if truth.dtype != np.bool_ or mask.dtype != np.bool_ or truth.shape != mask.shape or truth.ndim != 2:
        raise InputError(
            f"masks to compare must be bool and of one size, got truth {truth.dtype} {list(truth.shape)} "
            f"and mask {mask.dtype} {list(mask.shape)}"
        )
