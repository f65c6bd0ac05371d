"""Scores against ground truth, inside the region of interest.

SOSS is compared with the segmenter alone and with hard voting; a two-stage segmenter with its stage 1 alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.jit import thread_limit
from maskrt.runtime.bundle.two_stage_spec import BASELINE
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.metrics import Confusion, Metrics
from maskrt.runtime.pipelines.soss.fusion import fuse
from maskrt.runtime.pipelines.soss.pipeline import Branches, SossPipeline
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline, labels_of
from maskrt.runtime.region import checked_roi, cut
from maskrt.runtime.types import Labels, Roi, Stages

METHODS = ("segmenter", "hard_vote", "soss")
STAGES = ("stage_1", "two_stage")
POOLED, PER_IMAGE = "pooled", "per_image"  # two ways to take a score over several images
Truth = NDArray[np.bool_] | Labels


@dataclass(frozen=True)
class Comparison:
    """One image, cut to its region of interest.

    rgb: uint8 [h, w, 3]; truth: bool [h, w], where the class of interest is; masks: method -> bool [h, w].
    labels: method -> class numbers [h, w]. truth_labels: [h, w], where the truth has class numbers.
    """

    rgb: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    masks: dict[str, NDArray[np.bool_]]
    labels: dict[str, NDArray[Any]] = field(default_factory=dict, kw_only=True)
    truth_labels: Labels | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class MethodsComparison(Comparison):
    """The comparison of voting methods; branches: what the masks were made from."""

    branches: Branches


@dataclass(frozen=True)
class StagesComparison(Comparison):
    """The comparison of stages; stages: what the second one looked at again, in pixels of the region."""

    stages: Stages


def compare_methods(
    pipeline: SossPipeline, rgb: NDArray[np.uint8], truth: Truth, roi: Roi | None = None
) -> MethodsComparison:
    """Run both branches once and fuse them by each method.

    The segmenter's mask is its most probable class. "hard_vote" and "soss" differ in the ballots only; both treat
    uncovered pixels as the pipeline's settings say.

    Args:
        rgb: uint8 [H, W, 3].
        truth: bool [H, W], the class of interest; or uint8 or uint16 [H, W], class numbers.
        roi: x, y, width, height in pixels; None is the whole image.

    Raises:
        InputError: truth and image differ in size, or the ROI leaves the image.
    """
    _require_same_size(truth, rgb)
    branches = pipeline.branches(rgb, roi)
    spec = pipeline.voting
    labels = {
        "segmenter": branches.probabilities.argmax(axis=0),
        "hard_vote": fuse(branches.probabilities, branches.segments, msgspec.structs.replace(spec, vote="hard"))[0],
        "soss": fuse(branches.probabilities, branches.segments, msgspec.structs.replace(spec, vote="soft"))[0],
    }
    masks = {method: labels[method] == spec.target for method in METHODS}
    mask, numbers = _in_roi(truth, branches.roi_xywh, spec.target)
    return MethodsComparison(cut(rgb, branches.roi_xywh), mask, masks, branches, labels=labels, truth_labels=numbers)


def compare_stages(
    pipeline: TwoStagePipeline, rgb: NDArray[np.uint8], truth: Truth, roi: Roi | None = None
) -> StagesComparison:
    """Run stage 1 alone, both stages, and the baseline if the bundle has one; otherwise as compare_methods."""
    _require_same_size(truth, rgb)
    roi = checked_roi(rgb, roi)
    region = cut(rgb, roi)
    with thread_limit(pipeline.threads):
        (look,) = pipeline.segmenter.look([region], {})
        found = {"stage_1": pipeline.segmenter.first_stage()([region])[0], "two_stage": look.probabilities}
        if pipeline.baseline is not None:
            found = {BASELINE: pipeline.baseline([region])[0]} | found
    target = pipeline.settings.target
    labels = {name: labels_of(maps) for name, maps in found.items()}
    masks = {name: label == target for name, label in labels.items()}
    mask, numbers = _in_roi(truth, roi, target)
    return StagesComparison(region, mask, masks, look.stages, labels=labels, truth_labels=numbers)


def _in_roi(truth: Truth, roi: Roi, target: int) -> tuple[NDArray[np.bool_], Labels | None]:
    """Return the truth of the class of interest inside the region, and its class numbers if it has them."""
    inside: Any = cut(np.asarray(truth), roi)
    return (inside, None) if truth.dtype == np.bool_ else (inside == target, inside)


def _require_same_size(truth: Truth, rgb: NDArray[np.uint8]) -> None:
    if truth.shape != rgb.shape[:2]:
        raise InputError(
            f"truth is {truth.shape[1]} x {truth.shape[0]}, the image {rgb.shape[1]} x {rgb.shape[0]}: "
            "both must come from the same frame, unscaled"
        )


def percent(value: float) -> str:
    """Return a score as a table has it; - where it is undefined."""
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


@dataclass
class Scores:
    """The pixel counts of every method over the images added."""

    methods: tuple[str, ...] = METHODS
    images: int = 0
    confusions: dict[str, Confusion] = field(init=False)

    def __post_init__(self) -> None:
        self.confusions = {method: Confusion() for method in self.methods}

    def add(self, compared: Comparison) -> None:
        """Count one image."""
        self.images += 1
        for method, mask in compared.masks.items():
            self.confusions[method].add(compared.truth, mask)

    def metrics(self) -> dict[str, Metrics]:
        """Return method -> its scores over all images added so far, pooled; see Metrics."""
        return {method: confusion.metrics() for method, confusion in self.confusions.items()}

    def figures(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return "pooled" over all pixels, and "per_image", the mean of the images' values: method -> score -> value.

        Dice is a mean of images' values only; pooled, it would be F1.
        """
        pooled = {method: msgspec.structs.asdict(confusion.metrics()) for method, confusion in self.confusions.items()}
        for scores in pooled.values():
            del scores["dice"]
        means = {method: msgspec.structs.asdict(confusion.per_image()) for method, confusion in self.confusions.items()}
        return {POOLED: pooled, PER_IMAGE: means}

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each score's name, pooled and per image, and its value per method in percent."""
        for way, figures in self.figures().items():
            for name in figures[self.methods[0]]:
                yield f"{name}, {way.replace('_', ' ')}", [percent(figures[method][name]) for method in self.methods]
