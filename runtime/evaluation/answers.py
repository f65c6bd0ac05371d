"""A bundle's answers on real frames, by the runtime's own pipelines on the CPU."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maskrt.runtime.bundle.bundle import Agreement, Bundle, SossManifest, TwoStageManifest
from maskrt.runtime.engines.recorder import Watch, unwatched
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.agreement import AgreementCount
from maskrt.runtime.io.images import MAX_PIXELS
from maskrt.runtime.io.regions import RoiOf
from maskrt.runtime.io.sources import open_source
from maskrt.runtime.pipelines.refine.pipeline import RefinePipeline, RoughOf, rough_reader
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline
from maskrt.runtime.region import checked_roi
from maskrt.runtime.types import BadFrame, Frame, Result, Roi

SOSS, REFINER, TWO_STAGE = "soss", "refiner", "two_stage"
Answers = dict[str, dict[str, Result]]  # SOSS, REFINER or TWO_STAGE -> frame's name -> answer


@dataclass(frozen=True)
class Calibration:
    """Frames as in use.

    images: as of open_source; roi: as of run_batch; masks: a folder of rough masks for a refiner, which else refines
    what SOSS found.
    """

    images: str
    roi: Roi | RoiOf | None = None
    masks: Path | None = None
    max_pixels: int = MAX_PIXELS

    def frames(self) -> Iterator[tuple[Frame, Roi]]:
        """Every frame with its region of interest.

        Raises:
            InputError: there is none, or one cannot be read: what was measured on the rest would not be what was asked.
        """
        with open_source(self.images, self.max_pixels) as source:
            for item in source:
                if isinstance(item, BadFrame):
                    raise InputError(f"{item.source}: {item.reason}; mend the picture or take it away")
                yield item, checked_roi(item.rgb, self.roi(item.source) if callable(self.roi) else self.roi)


def answer(
    bundle: Bundle,
    calibration: Calibration,
    threads: int | None = None,
    reference: Answers | None = None,
    *,
    provider: str = "cpu",
    options: dict[str, Any] | None = None,
    watch: Watch = unwatched,
) -> Answers:
    """What a bundle's SOSS and its refiner, where it has them, or its two stages make of every frame, each by itself.

    Args:
        reference: another precision's answers, of which the refiner is to refine SOSS's; None: it refines this one's.
        options: override the bundle's mask and voting settings, or those of its two stages.
        watch: as of the pipelines.

    Raises:
        InputError: a frame cannot be used, or a refiner alone has no rough masks.
        NetworkError: a network returned NaN or infinity.
    """
    found: Answers = {}
    if isinstance(bundle.manifest, SossManifest):
        with SossPipeline(bundle, provider, threads, {**(options or {}), "select": "off"}, watch=watch) as soss:
            found[SOSS] = {frame.source: _lean(soss(frame, roi)) for frame, roi in calibration.frames()}
    if isinstance(bundle.manifest, TwoStageManifest):
        with TwoStagePipeline(bundle, provider, threads, options, watch=watch) as two_stage:
            found[TWO_STAGE] = {frame.source: _lean(two_stage(frame, roi)) for frame, roi in calibration.frames()}
    elif bundle.manifest.refiner is not None:
        soss_answers = (reference or found).get(SOSS)
        rough_of = _rough_of(calibration, soss_answers)
        with RefinePipeline(bundle, rough_of, provider, threads, watch=watch) as refiner:
            found[REFINER] = {frame.source: _lean(refiner(frame)) for frame, _ in calibration.frames()}
    return found


def agreements(reference: Answers, found: Answers) -> dict[str, Agreement]:
    """How near every part's answers come to the reference's, over all frames.

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


def told(agreement: dict[str, Agreement]) -> str:
    """In words."""
    parts = []
    for part, found in agreement.items():
        segments = "" if found.segments_iou is None else f", SAM's masks {found.segments_iou:.4f}"
        parts.append(
            f"{part}: mean IoU {found.mean_iou:.4f} with fp32 (worst {found.worst_iou:.4f}{segments}) over "
            f"{found.frames} frames, {found.label_difference:.3%} of the pixels of another class"
        )
    return "; ".join(parts)


def _rough_of(calibration: Calibration, soss_answers: Mapping[str, Result] | None) -> RoughOf:
    if calibration.masks is not None:
        return rough_reader(calibration.masks, False, calibration.max_pixels)
    if soss_answers is None:
        raise InputError("a refiner alone is verified on rough masks: name their folder with --masks")
    return lambda source: soss_answers[source].label


def _lean(result: Result) -> Result:
    """Without the probabilities, four bytes a pixel that nothing compares."""
    return replace(result, probability=np.zeros((0, 0), np.float32))
