"""SOSS: the segmenter says what a region is, SAM says where it ends.

Source: "Hybrid Deep Learning-Based for Enhanced Occlusion Segmentation in PICU Patient Monitoring", algorithm 1.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.jit import thread_limit
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.batching import attempt, look_at, raised, together_or_apart
from maskrt.runtime.bundle.bundle import Bundle, SossManifest, soss_manifest, with_overrides
from maskrt.runtime.closeable import Closing
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.recorder import Watch, unwatched
from maskrt.runtime.engines.session import Session
from maskrt.runtime.errors import InputError, NetworkError
from maskrt.runtime.pipelines.refine.pipeline import open_refiner, refine_labels
from maskrt.runtime.pipelines.refine.refiner import Refiner
from maskrt.runtime.pipelines.soss.fusion import fuse
from maskrt.runtime.pipelines.soss.segmenter import Segmenter
from maskrt.runtime.pipelines.two_stage.segmenter import TwoStageSegmenter
from maskrt.runtime.region import checked_roi, cut, in_frame, segments_in_frame
from maskrt.runtime.sam.mask_decoder import open_decoder
from maskrt.runtime.sam.mask_generator import AutomaticMasks
from maskrt.runtime.timing import timed, timed_together
from maskrt.runtime.types import Frame, Result, Roi, Segments


@dataclass(frozen=True)
class Branches:
    """What the two branches say of a region of interest, before they are fused.

    probabilities: float32 [C, h, w], the segmenter's; segments: SAM's masks; both in ROI coordinates.
    """

    roi_xywh: Roi
    probabilities: NDArray[np.float32]
    segments: Segments
    timings_ms: dict[str, float]


@dataclass(frozen=True)
class _View:
    """What both branches see of a frame of `size_hw`: uint8 [h, w, 3], C-contiguous."""

    crop: NDArray[np.uint8]
    roi_xywh: Roi
    size_hw: tuple[int, int]

    @classmethod
    def of(cls, rgb: NDArray[np.uint8], roi: Roi | None) -> Self:
        """The region of interest, cut out; raises as checked_roi."""
        checked = checked_roi(rgb, roi)
        return cls(cut(rgb, checked), checked, (rgb.shape[0], rgb.shape[1]))


class SossPipeline(Closing):
    """Frame in, occlusion mask out. Both branches see the region of interest only.

    Options override fields of the bundle's `masks`, `voting` and `refine` sections, and of `selection` where its
    segmenter has two stages, for example `open_pipeline(bundle, points_per_side=20, uncovered="segmenter")`. Where the
    bundle holds a refiner and `select` is not "off", the label map is refined in the end, class by class.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "cpu",
        threads: int | None = None,
        options: dict[str, Any] | None = None,
        kernels: KernelSet = sets.CPU,
        split_decoder: bool = True,
        watch: Watch = unwatched,
    ) -> None:
        """split_decoder: use the decoder's three graphs where the bundle has them; the answer is the same.

        watch: is given every session and its role, and returns what to use; a Recorder's, for example.
        """
        manifest, options = soss_manifest(bundle), options or {}
        self._kernels = kernels
        self._threads = threads
        voting, refine, stages = (
            {name: value for name, value in options.items() if name in spec.__struct_fields__}
            for spec in (manifest.voting, manifest.refine, manifest.selection)
        )
        if manifest.two_stage is None:
            stages = {}
        self.voting = with_overrides(manifest.voting, voting)
        masks = with_overrides(manifest.masks, {k: v for k, v in options.items() if k not in voting | refine | stages})
        self._refiner: Refiner | None = None
        if not 0 <= self.voting.target < len(manifest.segmenter.classes):
            raise InputError(f"target {self.voting.target} is not one of {len(manifest.segmenter.classes)} classes")

        with ExitStack() as stack:

            def load(role: str) -> Session:
                return stack.enter_context(watch(role, open_session(bundle.model_path(role), provider, threads)))

            decoder = open_decoder(bundle, provider, threads, split_decoder, stack, watch)
            self.segmenter = _open_segmenter(manifest, stages, load, kernels)
            self.automatic_masks = AutomaticMasks(load("encoder"), decoder, manifest.sam, masks, kernels)
            if with_overrides(manifest.refine, refine).select != "off":
                self._refiner = stack.enter_context(open_refiner(bundle, provider, threads, refine, watch))
            self._resources = stack.pop_all()

    def __call__(self, frame: Frame | NDArray[np.uint8], roi: Roi | None = None) -> Result:
        """Segment one frame; arguments, answer and errors as of a batch."""
        return raised(self.batch([frame], [roi])[0])

    def batch(
        self, frames: Sequence[Frame | NDArray[np.uint8]], rois: Sequence[Roi | None]
    ) -> list[Result | InputError | NetworkError]:
        """Segment several frames: segmenter and encoder take them together, the rest is done frame by frame.

        Args:
            frames: of any sizes, each a Frame, or its rgb as uint8 [H, W, 3].
            rois: of each frame x, y, width, height in pixels; None is the whole frame. Regions of one shape share a
                run of the encoder.

        Returns:
            Of each frame the result, or what is wrong with it alone: an InputError where the frame is not uint8 RGB,
            the ROI leaves it, or a stage of the segmenter has fixed sides that do not fit; a NetworkError where a
            network returned NaN or infinity, or failed, on it.

        Raises:
            NetworkError: segmenter or encoder failed on all of them.
            OutOfMemory: half of them did not fit into memory either.
        """
        return look_at(frames, rois, _View.of, self._look)

    def branches(self, rgb: NDArray[np.uint8], roi: Roi | None = None) -> Branches:
        """Run both branches without fusing them: what evaluation compares voting rules on. Arguments as of a call."""
        return raised(together_or_apart(self._branches, [_View.of(rgb, roi)])[0])

    def _look(self, views: Sequence[_View]) -> list[Result | InputError | NetworkError]:
        """The result of each view, or its own error."""
        return [
            attempt(partial(self._result, view, found)) if isinstance(found, Branches) else found
            for view, found in zip(views, together_or_apart(self._branches, views), strict=True)
        ]

    def _branches(self, views: Sequence[_View]) -> list[Branches | NetworkError]:
        """Raises what is not known to be one view's: InputError and NotFinite of whichever, NetworkErrors of all."""
        crops, timings_ms = [view.crop for view in views], [dict[str, float]() for _ in views]
        with thread_limit(self._threads):
            with timed_together(timings_ms, "segmenter"):
                probabilities = self.segmenter(crops)
            guided = self.automatic_masks.guided
            foregrounds = [1 - of_classes[0] if guided else None for of_classes in probabilities]
            segments = self.automatic_masks.batch(crops, timings_ms, foregrounds)
        return [
            found if isinstance(found, NetworkError) else Branches(view.roi_xywh, of_classes, found, own_ms)
            for view, of_classes, found, own_ms in zip(views, probabilities, segments, timings_ms, strict=True)
        ]

    def _result(self, view: _View, branches: Branches) -> Result:
        """The branches fused, refined where that is set, and put into the frame."""
        timings_ms = dict(branches.timings_ms)
        with timed(timings_ms, "voting"), thread_limit(self._threads):
            label, segment_classes = fuse(branches.probabilities, branches.segments, self.voting, self._kernels)
        roi, size_hw = view.roi_xywh, view.size_hw
        probability = branches.probabilities[self.voting.target]
        if self._refiner is not None:
            with timed(timings_ms, "refine"):
                refined, probability, _ = refine_labels(self._refiner, view.crop, label)
                label = refined.astype(np.uint8, copy=False)  # a segmenter has at most 256 classes
        with timed(timings_ms, "assemble"):
            return Result(
                mask=in_frame(label == self.voting.target, roi, size_hw),
                label=in_frame(label, roi, size_hw),
                probability=in_frame(probability, roi, size_hw),
                roi_xywh=roi,
                segments=segments_in_frame(branches.segments, roi, size_hw),
                segment_classes=segment_classes,
                timings_ms=timings_ms,
            )

    def close(self) -> None:
        """Free the sessions."""
        self._resources.close()


def _open_segmenter(
    manifest: SossManifest, stages: dict[str, Any], load: Callable[[str], Session], kernels: KernelSet
) -> Segmenter | TwoStageSegmenter:
    """The bundle's segmenter, of one stage or two; `stages` overrides how the latter is run."""
    if manifest.two_stage is None:
        return Segmenter(load("segmenter"), manifest.segmenter, kernels)
    settings = with_overrides(manifest.selection, stages)
    return TwoStageSegmenter(load("segmenter_low"), load("segmenter_high"), manifest.two_stage, settings, kernels)
