"""Describes how `maskrt eval` scores a pipeline: the methods that it compares, and the picture that shows them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.two_stage_spec import BASELINE
from maskrt.runtime.evaluation.compare import METHODS, STAGES, compare_methods, compare_stages
from maskrt.runtime.evaluation.figures import comparison, stages_comparison


@dataclass(frozen=True)
class Evaluation:
    """The way in which a kind of pipeline is scored.

    methods: names of what is compared. optional: further ones, before them, where the bundle has a model of that role.
    compare: (pipeline, rgb, truth, roi) -> Comparison; picture: Comparison -> RGB.
    """

    methods: tuple[str, ...]
    compare: Callable[..., Any]
    picture: Callable[..., NDArray[np.uint8]]
    optional: tuple[str, ...] = ()

    def methods_of(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the names of what is compared of a bundle."""
        return (*(name for name in self.optional if name in bundle.manifest.models), *self.methods)


SOSS_EVALUATION = Evaluation(METHODS, compare_methods, comparison)
TWO_STAGE_EVALUATION = Evaluation(STAGES, compare_stages, stages_comparison, optional=(BASELINE,))
