"""How a pipeline is evaluated, by its kind: what is compared, and the picture that shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.evaluation.compare import METHODS, STAGES, compare_methods, compare_stages
from maskrt.runtime.evaluation.figures import comparison, stages_comparison
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline


@dataclass(frozen=True)
class Evaluation:
    """methods: names of what is compared; compare: (pipeline, rgb, truth, roi) -> Compared; picture: of a Compared."""

    methods: tuple[str, ...]
    compare: Callable[..., Any]
    picture: Callable[..., NDArray[np.uint8]]


EVALUATIONS: dict[type, Evaluation] = {
    SossPipeline: Evaluation(METHODS, compare_methods, comparison),
    TwoStagePipeline: Evaluation(STAGES, compare_stages, stages_comparison),
}
