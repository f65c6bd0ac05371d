"""Scores of the segmenter alone, hard voting and SOSS against ground truth, inside the region of interest."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError
from maskrt.runtime.fusion import fuse
from maskrt.runtime.metrics import Confusion, Metrics
from maskrt.runtime.soss import Branches, SossPipeline
from maskrt.runtime.types import Roi

METHODS = ("segmenter", "hard_vote", "soss")


@dataclass(frozen=True)
class Compared:
    """One image, cut to its region of interest.

    rgb: uint8 [h, w, 3]; truth: bool [h, w]; masks: method -> bool [h, w]; branches: what the masks were made from.
    """

    rgb: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    masks: dict[str, NDArray[np.bool_]]
    branches: Branches


def compare_methods(
    pipeline: SossPipeline, rgb: NDArray[np.uint8], truth: NDArray[np.bool_], roi: Roi | None = None
) -> Compared:
    """Run both branches once and fuse them by each method.

    The segmenter's mask is its most probable class; "hard_vote" and "soss" differ in the ballots only, and treat
    uncovered pixels as the pipeline is set to.

    Args:
        rgb: uint8 [H, W, 3].
        truth: bool [H, W], the class of interest.
        roi: x, y, width, height in pixels; None is the whole image.

    Raises:
        InputError: truth and image differ in size, or the ROI leaves the image.
    """
    if truth.shape != rgb.shape[:2]:
        raise InputError(
            f"truth is {truth.shape[1]} x {truth.shape[0]}, the image {rgb.shape[1]} x {rgb.shape[0]}: "
            "both must come from the same frame, unscaled"
        )
    branches = pipeline.branches(rgb, roi)
    x, y, width, height = branches.roi_xywh
    window = (slice(y, y + height), slice(x, x + width))
    spec = pipeline.voting
    labels = {
        "segmenter": branches.probabilities.argmax(axis=0),
        "hard_vote": fuse(branches.probabilities, branches.segments, msgspec.structs.replace(spec, vote="hard"))[0],
        "soss": fuse(branches.probabilities, branches.segments, msgspec.structs.replace(spec, vote="soft"))[0],
    }
    masks = {method: labels[method] == spec.target for method in METHODS}
    return Compared(rgb[window], truth[window], masks, branches)


@dataclass
class Scores:
    """Pooled counts of every method over the images added."""

    images: int = 0
    confusions: dict[str, Confusion] = field(default_factory=lambda: {method: Confusion() for method in METHODS})

    def add(self, compared: Compared) -> None:
        """Count one image."""
        self.images += 1
        for method, mask in compared.masks.items():
            self.confusions[method].add(compared.truth, mask)

    def metrics(self) -> dict[str, Metrics]:
        """Method -> its six scores over all pixels counted so far."""
        return {method: confusion.metrics() for method, confusion in self.confusions.items()}

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """Metric name and its value per method in percent, as the source document's table has them."""
        metrics = self.metrics()
        for name in Metrics.__struct_fields__:
            values = (getattr(metrics[method], name) for method in METHODS)
            yield name, ["-" if np.isnan(value) else f"{100 * value:.1f}" for value in values]
