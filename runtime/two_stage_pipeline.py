"""A two-stage segmenter as a pipeline: frames in, the mask of the class of interest out."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.jit import thread_limit
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle import Bundle, two_stage_manifest, with_overrides
from maskrt.runtime.closing import Closing
from maskrt.runtime.recorder import Watch, unwatched
from maskrt.runtime.region import checked_roi, in_frame
from maskrt.runtime.session import Session, open_session
from maskrt.runtime.timing import timed
from maskrt.runtime.two_stage import Look, TwoStageSegmenter
from maskrt.runtime.types import Frame, Result, Roi, Segments, Stages


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
        self._threads = threads
        with ExitStack() as stack:

            def load(role: str) -> Session:
                return stack.enter_context(watch(role, open_session(bundle.model_path(role), provider, threads)))

            self.segmenter = TwoStageSegmenter(
                load("low"), load("high"), manifest.stages, self.settings, kernels, one_by_one
            )
            self._resources = stack.pop_all()

    def __call__(self, frame: Frame | NDArray[np.uint8], roi: Roi | None = None) -> Result:
        """Segment one frame.

        Args:
            frame: a Frame, or its rgb as uint8 [H, W, 3].
            roi: x, y, width, height in pixels; None is the whole frame.

        Returns:
            A result without segments; its `stages` say what was looked at again.

        Raises:
            InputError: the frame is not uint8 RGB, or the ROI leaves it.
            NetworkError: a network returned NaN or infinity, or another shape than the bundle declares.
        """
        (result,) = self.batch([frame], [roi])
        return result

    def batch(
        self, frames: Sequence[Frame | NDArray[np.uint8]], rois: Sequence[Roi | None] | None = None
    ) -> list[Result]:
        """Segment several frames, the patches of all in one batch. Arguments, answers and errors as of a call.

        timings_ms of each result are a frame's share of the batch's.
        """
        pictures = [frame.rgb if isinstance(frame, Frame) else frame for frame in frames]
        regions = [checked_roi(*pair) for pair in zip(pictures, rois or [None] * len(pictures), strict=True)]
        crops = [cut(rgb, roi) for rgb, roi in zip(pictures, regions, strict=True)]
        timings_ms: dict[str, float] = {}
        with thread_limit(self._threads):
            looks = self.segmenter.look(crops, timings_ms)
        with timed(timings_ms, "assemble"):
            found = [self._result(*of_frame) for of_frame in zip(pictures, regions, looks, strict=True)]
        for result in found:
            result.timings_ms.update({stage: spent / len(found) for stage, spent in timings_ms.items()})
        return found

    def _result(self, rgb: NDArray[np.uint8], roi: Roi, look: Look) -> Result:
        size_hw, target = (rgb.shape[0], rgb.shape[1]), self.settings.target
        label: NDArray[np.uint8] = look.probabilities.argmax(axis=0).astype(np.uint8)  # at most 256 classes
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


def cut(rgb: NDArray[np.uint8], roi: Roi) -> NDArray[np.uint8]:
    """The region of a frame, C-contiguous."""
    x, y, width, height = roi
    return np.ascontiguousarray(rgb[y : y + height, x : x + width])


def stages_in_frame(stages: Stages, roi: Roi) -> Stages:
    """What was looked at again in a region, in frame coordinates."""
    x, y, _, _ = roi
    windows = tuple((left + x, top + y, width, height) for left, top, width, height in stages.windows_xywh)
    return Stages(stages.working_hw, stages.padded_hw, windows)
