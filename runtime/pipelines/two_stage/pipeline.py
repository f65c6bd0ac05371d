"""A two-stage segmenter as a pipeline, which returns the mask of the class of interest."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.jit import thread_limit
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.batching import retry_individually
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.manifest import TwoStageManifest
from maskrt.runtime.bundle.two_stage_spec import BASELINE, baseline_specs
from maskrt.runtime.engines.loading import Sessions, WrapSession, as_loaded
from maskrt.runtime.pipelines.base import FramePipeline, Outcomes, View
from maskrt.runtime.pipelines.two_stage.segmenter import Look, TwoStageSegmenter
from maskrt.runtime.region import in_frame, stages_in_frame
from maskrt.runtime.timing import timed
from maskrt.runtime.types import Result, Segments


class TwoStagePipeline(FramePipeline):
    """A pipeline from a frame to its mask; both stages see the region of interest only.

    The patches of all frames are one batch. A result has no segments; its `stages` say what stage 2 looked at again,
    and its timings_ms are an equal share of the batch's.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "cpu",
        threads: int | None = None,
        kernels: KernelSet = sets.CPU,
        one_by_one: bool = False,
        wrap_session: WrapSession = as_loaded,
    ) -> None:
        """Load the networks.

        Args:
            one_by_one: see TwoStageSegmenter.
            wrap_session: see Sessions.

        Raises:
            BundleError: the bundle is of another kind, or a model is missing or does not fit.
            InputError: a setting does not fit the bundle.
            ProviderUnavailable: the provider is not on this machine.
        """
        manifest = bundle.expect(TwoStageManifest)
        self.settings, self.threads = manifest.patch_selection, threads
        self._kernels, self._spec = kernels, manifest.two_stage
        self._has_baseline = BASELINE in manifest.models
        self._sessions = Sessions(bundle, provider, threads, wrap_session)
        with self._sessions.loading() as sessions:
            low, high = sessions.load("low"), sessions.load("high")
            self.segmenter = TwoStageSegmenter(low, high, manifest.two_stage, self.settings, kernels, one_by_one)

    @cached_property
    def baseline(self) -> TwoStageSegmenter | None:
        """The document's baseline, one network on the whole working picture; None where the bundle has none.

        It is loaded when it is first asked for, since only an evaluation does.

        Raises:
            BundleError, ProviderUnavailable, OutOfMemory: it cannot be loaded.
        """
        if not self._has_baseline:
            return None
        session, (spec, alone) = self._sessions.load(BASELINE), baseline_specs(self._spec, self.settings)
        return TwoStageSegmenter(session, session, spec, alone, self._kernels)

    def _segment(self, views: Sequence[View]) -> Outcomes:
        """See FramePipeline."""
        return [*retry_individually(self._results, views)]

    def _results(self, views: Sequence[View]) -> list[Result]:
        timings_ms: dict[str, float] = {}
        with thread_limit(self.threads):
            looks = self.segmenter.look([view.rgb for view in views], timings_ms)
        with timed(timings_ms, "assemble"):
            found = [self._result(view, look) for view, look in zip(views, looks, strict=True)]
        for result in found:
            result.timings_ms.update({stage: spent / len(found) for stage, spent in timings_ms.items()})
        return found

    def _result(self, view: View, look: Look) -> Result:
        roi, size_hw, target = view.roi_xywh, view.size_hw, self.settings.target
        label = labels_of(look.probabilities)
        return Result(
            mask=in_frame(label == target, roi, size_hw),
            label=in_frame(label, roi, size_hw),
            probability=in_frame(look.probabilities[target], roi, size_hw),
            roi_xywh=roi,
            segments=Segments.none(size_hw),
            segment_classes=np.zeros(0, np.int64),
            stages=stages_in_frame(look.stages, roi),
        )

    def close(self) -> None:
        """Free the sessions."""
        self._sessions.close()


def labels_of(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the most probable class of each pixel, uint8 [h, w], from float32 [C, h, w]; the first of equal ones."""
    if len(probabilities) == 2:  # argmax took 106 ms at 1920 x 1080, this 1 ms
        return np.asarray(probabilities[1] > probabilities[0], np.uint8)
    return np.asarray(probabilities.argmax(axis=0), np.uint8)  # at most 256 classes
