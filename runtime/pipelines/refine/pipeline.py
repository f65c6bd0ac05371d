"""Refinement as a pipeline; a reader finds the rough mask or label map of each frame."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.batching import attempt
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.specs import RefinementSpec, RefinerSpec
from maskrt.runtime.engines.loading import Sessions, WrapSession, as_loaded
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.files import sha256_of
from maskrt.runtime.io.masks import read_labels, read_rough
from maskrt.runtime.pipelines.base import FramePipeline, Outcomes, View, view_of
from maskrt.runtime.pipelines.refine.refiner import Refiner
from maskrt.runtime.types import Frame, Labels, Result, Roi, Segments

MAX_CLASS = 65535
RoughOf = Callable[[str], NDArray[Any]]  # from a frame's name to its mask (bool or float32) or integer label map


class RefinePipeline(FramePipeline):
    """A pipeline that refines the rough mask of each frame; it takes whole frames and refuses a region of interest."""

    def __init__(
        self,
        bundle: Bundle,
        rough_of: RoughOf,
        provider: str = "cpu",
        threads: int | None = None,
        kernels: KernelSet = sets.CPU,
        wrap_session: WrapSession = as_loaded,
    ) -> None:
        """Load the refiner.

        Args:
            rough_of: finds the mask or label map of a frame by its name; an InputError that it raises is that frame's.
            wrap_session: see Sessions.

        Raises:
            BundleError: the bundle has no refiner.
            ProviderUnavailable: the provider is not on this machine.
        """
        self._rough_of = rough_of
        self.refiner = open_refiner(bundle, provider, threads, kernels, wrap_session)

    def _view(self, frame: Frame, roi: Roi | None) -> View:
        """See FramePipeline."""
        view = view_of(frame, roi)
        if view.rgb.shape[:2] != view.size_hw:
            raise InputError("refinement takes whole frames: leave the region of interest out")
        return view

    def _segment(self, views: Sequence[View]) -> Outcomes:
        """See FramePipeline."""
        return [attempt(partial(self._refine, view)) for view in views]

    def _refine(self, view: View) -> Result:
        """Refine one frame's mask, or its label map class by class."""
        rough = self._rough_of(view.name)
        if rough.dtype == np.bool_ or np.issubdtype(rough.dtype, np.floating):
            refined = self.refiner(view.rgb, rough)
            label: Labels = refined.mask.astype(np.uint8)
            probability, timings_ms = refined.probability, refined.timings_ms
        else:
            label, probability, timings_ms = refine_labels(self.refiner, view.rgb, rough)
        return Result(
            mask=label != 0,
            label=label,
            probability=probability,
            roi_xywh=view.roi_xywh,
            segments=Segments.none(view.size_hw),
            segment_classes=np.zeros(0, np.int64),
            timings_ms=timings_ms,
        )

    def close(self) -> None:
        """Free the sessions."""
        self.refiner.close()


def open_refiner(
    bundle: Bundle,
    provider: str = "cpu",
    threads: int | None = None,
    kernels: KernelSet = sets.CPU,
    wrap_session: WrapSession = as_loaded,
) -> Refiner:
    """Load the refiner of a bundle, which may hold it alone or behind a segmenter; wrap_session: see Sessions.

    Raises:
        BundleError: the bundle has no refiner.
        ProviderUnavailable: the provider is not on this machine.
    """
    spec, settings = refiner_of(bundle)
    # Behind a segmenter the file may say off; this caller asks for a refinement. A user who sets off gets an error.
    if settings.select == "off" and "select" not in bundle.overridden:
        settings = msgspec.structs.replace(settings, select="full")
    return Refiner(Sessions(bundle, provider, threads, wrap_session), spec, settings, kernels)


def refiner_of(bundle: Bundle) -> tuple[RefinerSpec, RefinementSpec]:
    """Return the description and the settings of a bundle's refiner.

    Raises:
        BundleError: the bundle has no refiner.
    """
    found = bundle.manifest.refiner_specs
    if found is None:
        raise BundleError(
            f"{bundle.path}, of kind {bundle.manifest.kind}, has no refiner: export one with maskrt export refiner"
        )
    return found


def refine_labels(
    refiner: Refiner, rgb: NDArray[np.uint8], labels: NDArray[np.integer[Any]]
) -> tuple[Labels, NDArray[np.float32], dict[str, float]]:
    """Refine a label map class by class; a pixel takes its most probable class, or 0 where none passes a half.

    Args:
        rgb: uint8 [H, W, 3].
        labels: integers [H, W] from 0 to MAX_CLASS; 0 is the background, which is not refined itself.

    Returns:
        The labels, uint8 [H, W], or uint16 where a class passes 255; the winning probabilities, float32 [H, W]; and
        stage -> milliseconds over all classes.

    Raises:
        InputError: see Refiner; or a label is out of range.
    """
    classes = [int(number) for number in np.unique(labels) if number != 0]
    if classes and not 0 < classes[0] <= classes[-1] <= MAX_CLASS:
        raise InputError(f"the label map has classes {classes[0]} to {classes[-1]}: expected 0 to {MAX_CLASS}")
    best = np.zeros(labels.shape, np.float32)
    found: Labels = np.zeros(labels.shape, np.uint16 if classes and classes[-1] > 255 else np.uint8)
    timings_ms: dict[str, float] = {}
    for number in classes or [1]:  # a map without classes is checked as an empty mask
        refined = refiner(rgb, labels == number)
        wins = refined.probability > np.maximum(best, 0.5)
        found[wins] = number
        np.maximum(best, refined.probability, out=best)
        for stage, spent in refined.timings_ms.items():
            timings_ms[stage] = timings_ms.get(stage, 0) + spent
    return found, best, timings_ms


def rough_reader(folder: Path, labels: bool, max_pixels: int) -> RoughOf:
    """Return a function that reads FOLDER/NAME.png for a frame's name.

    Args:
        labels: whether the files are label maps.

    Raises:
        InputError: there is no such folder; the function raises it for a missing or unreadable file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it should hold a STEM.png per image")
    read = read_labels if labels else read_rough
    return lambda name: read(folder / f"{name}.png", max_pixels)


def sha256_of_masks(folder: Path) -> str:
    """Return one sha256 of all masks of a folder; a run that continues an earlier one must have the same."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.png")):
        digest.update(path.name.encode("utf-8", "surrogateescape") + sha256_of(path).encode())
    return digest.hexdigest()
