"""Describes how `maskrt eval` scores a pipeline: the methods that it compares, and the picture that shows them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.evaluation.compare import METHODS, STAGES, compare_methods, compare_stages
from maskrt.runtime.evaluation.figures import comparison, stages_comparison


@dataclass(frozen=True)
class Evaluation:
    """The way in which a kind of pipeline is scored.

    methods: names of what is compared; compare: (pipeline, rgb, truth, roi) -> Comparison; picture: Comparison -> RGB.
    """

    methods: tuple[str, ...]
    compare: Callable[..., Any]
    picture: Callable[..., NDArray[np.uint8]]


SOSS_EVALUATION = Evaluation(METHODS, compare_methods, comparison)
TWO_STAGE_EVALUATION = Evaluation(STAGES, compare_stages, stages_comparison)
