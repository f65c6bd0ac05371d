"""Computes a bundle's answers on real frames with the runtime's own pipelines."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maskrt.kernels import sets
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.manifest import Agreement
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.engines.loading import WrapSession, as_loaded
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.agreement import AgreementCount
from maskrt.runtime.io.decoding import MAX_PIXELS
from maskrt.runtime.io.regions import RoiOf
from maskrt.runtime.io.sources import open_source
from maskrt.runtime.pipelines.base import FramePipeline
from maskrt.runtime.pipelines.refine.pipeline import RefinePipeline, RoughOf, rough_reader
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline
from maskrt.runtime.region import checked_roi
from maskrt.runtime.types import BadFrame, Frame, Result, Roi

SOSS, REFINER, TWO_STAGE = "soss", "refiner", "two_stage"
Answers = dict[str, dict[str, Result]]  # SOSS, REFINER or TWO_STAGE -> frame's name -> answer


@dataclass(frozen=True)
class Calibration:
    """Frames like those in use.

    images: see open_source; roi: see run_batch; masks: a folder of rough masks for a refiner, which otherwise refines
    what SOSS found.
    """

    images: str
    roi: Roi | RoiOf | None = None
    masks: Path | None = None
    max_pixels: int = MAX_PIXELS

    def frames(self) -> Iterator[tuple[Frame, Roi]]:
        """Yield every frame with its region of interest.

        Raises:
            InputError: there is no frame, or one cannot be read; a measurement on the rest would mislead.
        """
        with open_source(self.images, self.max_pixels) as source:
            for item in source:
                if isinstance(item, BadFrame):
                    raise InputError(f"{item.name}: {item.reason}; repair the picture or remove it")
                yield item, checked_roi(item.rgb, self.roi(item.name) if callable(self.roi) else self.roi)


@dataclass(frozen=True)
class Question:
    """A question to a bundle: what it answers on the calibration's frames.

    bundle: in one of its precisions, with the settings to run it with. reference: another precision's answers; a
    refiner then refines the segmenter's answers among them, otherwise this bundle's own. wrap_session: see Sessions.
    kernels: those that the pipelines run with.
    """

    bundle: Bundle
    calibration: Calibration
    threads: int | None = None
    reference: Answers | None = None
    provider: str = "cpu"
    wrap_session: WrapSession = as_loaded
    kernels: KernelSet = sets.CPU

    @property
    def opening(self) -> dict[str, Any]:
        """The arguments with which every pipeline that answers it is opened, behind the bundle."""
        return {
            "provider": self.provider,
            "threads": self.threads,
            "kernels": self.kernels,
            "wrap_session": self.wrap_session,
        }


# Runs every frame through what a bundle holds. Raises InputError if a frame cannot be used, NetworkError if a network
# fails.
Answer = Callable[[Question], Answers]


def soss_answers(asked: Question) -> Answers:
    """Return SOSS's unrefined answers on every frame, and its refiner's answers to those if it has one."""
    unrefined = with_settings(asked.bundle, {"select": "off"})
    with SossPipeline(unrefined, **asked.opening) as soss:
        found = {SOSS: _each(soss, asked.calibration)}
    if asked.bundle.manifest.refiner_specs is None:
        return found
    soss_found = (asked.reference or found)[SOSS]
    return found | _refined(asked, lambda name: soss_found[name].label)


def two_stage_answers(asked: Question) -> Answers:
    """Return the answer of both stages on every frame."""
    with TwoStagePipeline(asked.bundle, **asked.opening) as two_stage:
        return {TWO_STAGE: _each(two_stage, asked.calibration)}


def refiner_answers(asked: Question) -> Answers:
    """Return the answers of a refiner alone, on rough masks.

    Raises:
        InputError: the calibration names no rough masks.
    """
    if asked.calibration.masks is None:
        raise InputError("a refiner alone is verified on rough masks: name their folder with --masks")
    return _refined(asked, None)


def _refined(asked: Question, rough_of: RoughOf | None) -> Answers:
    """Return the refiner's answers on the calibration's rough masks, or on those of `rough_of` if it names none."""
    masks = asked.calibration.masks
    if masks is not None:
        rough_of = rough_reader(masks, False, asked.calibration.max_pixels)
    assert rough_of is not None
    with RefinePipeline(asked.bundle, rough_of, **asked.opening) as refiner:
        return {REFINER: {frame.name: _lean(refiner(frame)) for frame, _ in asked.calibration.frames()}}


def _each(pipeline: FramePipeline, calibration: Calibration) -> dict[str, Result]:
    return {frame.name: _lean(pipeline(frame, roi)) for frame, roi in calibration.frames()}


def agreements(reference: Answers, found: Answers) -> dict[str, Agreement]:
    """Return how near every part's answers come to the reference's, over all frames.

    Raises:
        InputError: a part found no mask in any frame, so nothing was compared.
    """
    totals: dict[str, Agreement] = {}
    for part, answers in reference.items():
        count = AgreementCount()
        for name, result in answers.items():
            count.add(result, found[part][name])
        total = count.total()
        if total is None:
            raise InputError(
                f"{part} finds no mask in any of the {len(answers)} pictures: "
                "take pictures that show what is to be segmented"
            )
        totals[part] = total
    return totals


def summarized(agreement: dict[str, Agreement]) -> str:
    """Return the agreement in words."""
    parts = []
    for part, found in agreement.items():
        segments = "" if found.segments_iou is None else f", SAM's masks {found.segments_iou:.4f}"
        parts.append(
            f"{part}: mean IoU {found.mean_iou:.4f} with fp32 (worst {found.worst_iou:.4f}{segments}) over "
            f"{found.frames} frames, {found.label_difference:.3%} of the pixels of another class"
        )
    return "; ".join(parts)


def _lean(result: Result) -> Result:
    """Drop the probabilities, four bytes a pixel that nothing compares."""
    return replace(result, probability=np.zeros((0, 0), np.float32))
