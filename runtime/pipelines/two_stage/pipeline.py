"""A two-stage segmenter as a pipeline: frames in, the mask of the class of interest out."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.jit import thread_limit
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.batching import look_at, raised, together_or_apart
from maskrt.runtime.bundle.bundle import Bundle, two_stage_manifest, with_overrides
from maskrt.runtime.closeable import Closing
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.recorder import Watch, unwatched
from maskrt.runtime.engines.session import Session
from maskrt.runtime.errors import InputError, NetworkError
from maskrt.runtime.pipelines.two_stage.segmenter import Look, TwoStageSegmenter
from maskrt.runtime.region import checked_roi, cut, in_frame, stages_in_frame
from maskrt.runtime.timing import timed
from maskrt.runtime.types import Frame, Result, Roi, Segments


@dataclass(frozen=True)
class _View:
    """A frame, uint8 [H, W, 3], and its region of interest, checked."""

    rgb: NDArray[np.uint8]
    roi_xywh: Roi

    @classmethod
    def of(cls, rgb: NDArray[np.uint8], roi: Roi | None) -> Self:
        """The frame with its region; raises as checked_roi."""
        return cls(rgb, checked_roi(rgb, roi))


class TwoStagePipeline(Closing):
    """Frame in, mask out; both stages see the region of interest only.

    Options override fields of the bundle's `selection` section, as `open_pipeline(bundle, patches=4)`.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "cpu",
        threads: int | None = None,
        options: dict[str, Any] | None = None,
        kernels: KernelSet = sets.CPU,
        one_by_one: bool = False,
        watch: Watch = unwatched,
    ) -> None:
        """one_by_one: as of TwoStageSegmenter; watch: is given every session and its role, and returns what to use.

        Raises:
            BundleError: the bundle is of another kind, a model is missing or does not fit, or an option is unknown.
            InputError: an option does not fit the bundle.
            ProviderUnavailable: the provider is not on this machine.
        """
        manifest = two_stage_manifest(bundle)
        self.settings = with_overrides(manifest.selection, options or {})
        self.threads = threads
        with ExitStack() as stack:

            def load(role: str) -> Session:
                return stack.enter_context(watch(role, open_session(bundle.model_path(role), provider, threads)))

            self.segmenter = TwoStageSegmenter(
                load("low"), load("high"), manifest.stages, self.settings, kernels, one_by_one
            )
            self._resources = stack.pop_all()

    def __call__(self, frame: Frame | NDArray[np.uint8], roi: Roi | None = None) -> Result:
        """Segment one frame; arguments, answer and errors as of a batch."""
        return raised(self.batch([frame], [roi])[0])

    def batch(
        self, frames: Sequence[Frame | NDArray[np.uint8]], rois: Sequence[Roi | None]
    ) -> list[Result | InputError | NetworkError]:
        """Segment several frames; the patches of all of them are one batch.

        Args:
            frames: of any sizes, each a Frame, or its rgb as uint8 [H, W, 3].
            rois: of each frame x, y, width, height in pixels; None is the whole frame.

        Returns:
            Of each frame the result, without segments; its `stages` say what was looked at again, its timings_ms are
            an equal share of the batch's. Or what is wrong with it alone: an InputError where it is not uint8 RGB, the
            ROI leaves it, or a network has fixed sides that do not fit; a NetworkError where a network returned NaN or
            infinity on it.

        Raises:
            NetworkError: a network failed, or returned another shape than the bundle declares.
            OutOfMemory: half of what a network takes at a time did not fit into memory either.
        """
        return look_at(frames, rois, _View.of, partial(together_or_apart, self._results))

    def _results(self, views: Sequence[_View]) -> list[Result]:
        timings_ms: dict[str, float] = {}
        with thread_limit(self.threads):
            looks = self.segmenter.look([cut(view.rgb, view.roi_xywh) for view in views], timings_ms)
        with timed(timings_ms, "assemble"):
            found = [self._result(view, look) for view, look in zip(views, looks, strict=True)]
        for result in found:
            result.timings_ms.update({stage: spent / len(found) for stage, spent in timings_ms.items()})
        return found

    def _result(self, view: _View, look: Look) -> Result:
        roi, size_hw, target = view.roi_xywh, (view.rgb.shape[0], view.rgb.shape[1]), self.settings.target
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
        self._resources.close()


def labels_of(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The most probable class of each pixel, uint8 [h, w], of float32 [C, h, w]; of equal ones the first."""
    if len(probabilities) == 2:  # argmax took 106 ms at 1920 x 1080, this 1 ms
        return np.asarray(probabilities[1] > probabilities[0], np.uint8)
    return np.asarray(probabilities.argmax(axis=0), np.uint8)  # at most 256 classes
