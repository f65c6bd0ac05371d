"""The SOSS pipeline: the segmenter says what a region is, and SAM says where it ends.

Source: "Hybrid Deep Learning-Based for Enhanced Occlusion Segmentation in PICU Patient Monitoring", algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.jit import thread_limit
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.batching import attempt, retry_individually, unwrap
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.engines.loading import Sessions, WrapSession, as_loaded
from maskrt.runtime.errors import InputError, NetworkError
from maskrt.runtime.pipelines.base import FramePipeline, Outcomes, View, view_of
from maskrt.runtime.pipelines.refine.pipeline import refine_labels, refiner_of
from maskrt.runtime.pipelines.refine.refiner import Refiner
from maskrt.runtime.pipelines.soss.fusion import fuse
from maskrt.runtime.pipelines.soss.segmenter import Segmenter
from maskrt.runtime.pipelines.two_stage.segmenter import TwoStageSegmenter
from maskrt.runtime.region import in_frame, segments_in_frame
from maskrt.runtime.sam.mask_decoder import open_decoder
from maskrt.runtime.sam.mask_generator import AutomaticMaskGenerator
from maskrt.runtime.timing import timed, timed_together
from maskrt.runtime.types import Frame, Result, Roi, Segments


@dataclass(frozen=True)
class Branches:
    """The answers of the two branches on a region of interest, before they are fused.

    probabilities: float32 [C, h, w], the segmenter's; segments: SAM's masks; both in ROI coordinates.
    """

    roi_xywh: Roi
    probabilities: NDArray[np.float32]
    segments: Segments
    timings_ms: dict[str, float]


class SossPipeline(FramePipeline):
    """A pipeline from a frame to its occlusion mask; both branches see the region of interest only.

    The bundle's settings say how it runs (maskrt.runtime.bundle.settings overrides them). Where the bundle holds a
    refiner and `select` is not "off", the label map is refined at the end, class by class. The segmenter takes several
    frames in one run, and the encoder takes regions of one shape in one run; all other work is done frame by frame.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "cpu",
        threads: int | None = None,
        kernels: KernelSet = sets.CPU,
        split_decoder: bool = True,
        wrap_session: WrapSession = as_loaded,
    ) -> None:
        """Load the networks.

        Args:
            split_decoder: use the decoder's three graphs where the bundle has them; the answer is the same.
            wrap_session: see Sessions.

        Raises:
            BundleError: the bundle is of another kind, or a model is missing or does not fit.
            InputError: a setting does not fit the bundle.
            ProviderUnavailable: the provider is not on this machine.
        """
        manifest = bundle.expect(SossManifest)
        self.voting = manifest.voting
        self._kernels, self._threads = kernels, threads
        self._refiner: Refiner | None = None
        if not 0 <= self.voting.target < len(manifest.classes):
            raise InputError(f"target {self.voting.target} is not one of {len(manifest.classes)} classes")
        self._sessions = Sessions(bundle, provider, threads, wrap_session)
        with self._sessions.loading() as sessions:
            decoder = open_decoder(sessions, manifest.sam, split_decoder)
            self.segmenter = _open_segmenter(sessions, manifest, kernels)
            encoder = sessions.load("encoder")
            self.mask_generator = AutomaticMaskGenerator(encoder, decoder, manifest.sam, manifest.masks, kernels)
            if manifest.refinement.select != "off":
                self._refiner = Refiner(sessions, *refiner_of(bundle), kernels)

    def branches(self, rgb: NDArray[np.uint8], roi: Roi | None = None) -> Branches:
        """Run both branches without fusing them, to compare voting rules; arguments as for a call."""
        return unwrap(retry_individually(self._branches, [view_of(Frame(rgb), roi)])[0])

    def _segment(self, views: Sequence[View]) -> Outcomes:
        """See FramePipeline."""
        return [
            attempt(partial(self._result, view, found)) if isinstance(found, Branches) else found
            for view, found in zip(views, retry_individually(self._branches, views), strict=True)
        ]

    def _branches(self, views: Sequence[View]) -> list[Branches | NetworkError]:
        """Run both branches on all views.

        Raises:
            InputError, NotFinite: the error of one view, without saying which.
            NetworkError: the error of all views.
        """
        crops, timings_ms = [view.rgb for view in views], [dict[str, float]() for _ in views]
        with thread_limit(self._threads):
            with timed_together(timings_ms, "segmenter"):
                probabilities = self.segmenter(crops)
            needed = self.mask_generator.needs_foreground
            foregrounds = [1 - of_classes[0] if needed else None for of_classes in probabilities]
            segments = self.mask_generator.batch(crops, timings_ms, foregrounds)
        return [
            found if isinstance(found, NetworkError) else Branches(view.roi_xywh, of_classes, found, own_ms)
            for view, of_classes, found, own_ms in zip(views, probabilities, segments, timings_ms, strict=True)
        ]

    def _result(self, view: View, branches: Branches) -> Result:
        """Fuse the branches, refine where the settings ask for it, and put the result into the frame."""
        timings_ms = dict(branches.timings_ms)
        with timed(timings_ms, "voting"), thread_limit(self._threads):
            label, segment_classes = fuse(branches.probabilities, branches.segments, self.voting, self._kernels)
        roi, size_hw = view.roi_xywh, view.size_hw
        probability = branches.probabilities[self.voting.target]
        if self._refiner is not None:
            with timed(timings_ms, "refine"):
                refined, probability, _ = refine_labels(self._refiner, view.rgb, label)
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
        self._sessions.close()


def _open_segmenter(sessions: Sessions, manifest: SossManifest, kernels: KernelSet) -> Segmenter | TwoStageSegmenter:
    """Load the bundle's segmenter, which has one stage or two."""
    if manifest.two_stage is None:
        return Segmenter(sessions.load("segmenter"), manifest.segmenter, kernels)
    low, high = sessions.load("segmenter_low"), sessions.load("segmenter_high")
    return TwoStageSegmenter(low, high, manifest.two_stage, manifest.patch_selection, kernels)
