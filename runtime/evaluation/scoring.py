"""What `maskrt eval` scores of a pipeline: the methods that are compared, and the picture that shows them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.evaluation.compare import METHODS, STAGES, compare_methods, compare_stages
from maskrt.runtime.evaluation.figures import comparison, stages_comparison


@dataclass(frozen=True)
class Evaluation:
    """How a kind of pipeline is scored.

    methods: names of what is compared; compare: (pipeline, rgb, truth, roi) -> Comparison; picture: of a Comparison.
    """

    methods: tuple[str, ...]
    compare: Callable[..., Any]
    picture: Callable[..., NDArray[np.uint8]]


SOSS_EVALUATION = Evaluation(METHODS, compare_methods, comparison)
TWO_STAGE_EVALUATION = Evaluation(STAGES, compare_stages, stages_comparison)
