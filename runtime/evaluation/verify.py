"""Certificates: compares a pipeline's plain and fast way on this machine and one image."""

import time
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle.bundle import FP32, Bundle
from maskrt.runtime.bundle.manifest import Agreement
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.evaluation.answers import Answer, Calibration, Question, agreements
from maskrt.runtime.evaluation.equality import compare_segments, records
from maskrt.runtime.pipelines.refine.pipeline import open_refiner, refiner_of
from maskrt.runtime.pipelines.refine.refiner import MAX_SIDE, Refiner
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.types import Roi

TIE = 1e-4  # a probability this near to a half is decided by rounding


class ImageCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The part that every certificate of one image has; plain_s, fast_s: seconds of one run each."""

    name: str = msgspec.field(name="source")
    ties: int
    different: int
    plain_s: float
    fast_s: float

    @property
    def passed(self) -> bool:
        """Whether nothing differs, ties apart."""
        return self.different == 0

    @property
    def summary(self) -> str:
        """The counts in words."""
        return f"{self.ties} ties, {self.different} different"


class Certificate(ImageCertificate, frozen=True, kw_only=True):
    """The certificate of SOSS on one image.

    masks, identical_rles, ties, different: see maskrt.runtime.evaluation.equality; label_differences: pixels whose
    class differs; plain_s, fast_s: seconds of one run each, with the networks, so their ratio is no benchmark.
    """

    masks: int
    identical_rles: int
    label_differences: int

    @property
    def summary(self) -> str:
        """The certificate in words."""
        return (
            f"{self.masks} masks, {self.identical_rles} identical, {self.ties} ties, {self.different} different; "
            f"{self.label_differences} pixels of another class"
        )


class RefinerCertificate(ImageCertificate, frozen=True, kw_only=True):
    """The certificate of a refiner on one image.

    pixels: number of the image's pixels; ties: pixels whose label differs and whose plain probability is within TIE of
    a half; different: other pixels whose label differs; largest: the largest difference of two probabilities.
    """

    pixels: int
    largest: float

    @property
    def summary(self) -> str:
        """The certificate in words."""
        return (
            f"{self.pixels} pixels, {self.ties} ties, {self.different} different; "
            f"probabilities within {self.largest:.1e}"
        )


class PrecisionCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate of a lower precision: how far it is from float32 on this machine's CPU, over all images.

    agreement: for each part, "soss", "two_stage" or "refiner"; tolerance: the least mean IoU, as at export.
    """

    precision: str
    provider: str
    agreement: dict[str, Agreement]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every part's mean IoU reaches the tolerance."""
        return all(found.mean_iou >= self.tolerance for found in self.agreement.values())


def certify_precision(
    bundle: Bundle,
    answer: Answer,
    frames: Calibration,
    provider: str = "cpu",
    threads: int | None = None,
    kernels: KernelSet = sets.CPU,
) -> PrecisionCertificate:
    """Run a bundle's lower precision on a provider with the kernels, and float32 in ONNX Runtime on the CPU.

    Args:
        bundle: in the lower precision, with the settings to run it with.
        answer: computes the answers of its kind, see maskrt.runtime.kinds.

    Raises:
        InputError, NetworkError: see Answer.
    """
    reference = answer(Question(bundle.at(FP32), frames, threads))
    found = answer(Question(bundle, frames, threads, reference, provider, kernels=kernels))
    return PrecisionCertificate(
        precision=bundle.precision,
        provider=provider,
        agreement=agreements(reference, found),
        tolerance=bundle.manifest.precisions[bundle.precision].tolerance,
    )


class Certify(Protocol):
    """A function that runs a bundle's pipeline on one picture, plain and fast, and counts the differences.

    Plain is ONNX Runtime on the CPU with the reference kernels; fast is what `maskrt run` does with the given provider
    and kernels. Both use the bundle's settings. It raises InputError or NetworkError as the pipeline does.
    """

    def __call__(
        self,
        bundle: Bundle,
        name: str,
        rgb: NDArray[np.uint8],
        roi: Roi | None,
        provider: str,
        threads: int | None,
        kernels: KernelSet,
    ) -> ImageCertificate: ...


def certify_soss(
    bundle: Bundle,
    name: str,
    rgb: NDArray[np.uint8],
    roi: Roi | None,
    provider: str = "cpu",
    threads: int | None = None,
    kernels: KernelSet = sets.CPU,
) -> Certificate:
    """Run the pipeline twice, plain and fast, and count the differences.

    Plain: ONNX Runtime on the CPU, kernels/*/reference.py, and the decoder in one graph that draws every mask. Fast:
    what `maskrt run` does on the given provider. Segmenter and SAM encoder are the same ONNX files both times. Their
    distance from PyTorch, and that of the decoder in one graph, was measured at export and stands in the bundle.

    Raises:
        InputError, NetworkError: as the pipeline does.
    """
    with SossPipeline(bundle, provider, threads, kernels) as fast:
        fast(rgb, roi)  # compiles or loads the kernels
        start = time.perf_counter()
        ours = fast(rgb, roi)
        fast_s = time.perf_counter() - start
    with SossPipeline(bundle, "cpu", threads, sets.REFERENCE, split_decoder=False) as plain:
        start = time.perf_counter()
        reference = plain(rgb, roi)
        plain_s = time.perf_counter() - start
    equality = compare_segments(ours.segments, records(reference.segments))
    return Certificate(
        name=name,
        masks=equality.masks,
        identical_rles=equality.identical_rles,
        ties=equality.ties,
        different=equality.different,
        label_differences=int(np.count_nonzero(ours.label != reference.label)),
        plain_s=plain_s,
        fast_s=fast_s,
    )


def certify_refiner(
    bundle: Bundle,
    name: str,
    rgb: NDArray[np.uint8],
    rough: NDArray[np.float32],
    provider: str = "cpu",
    threads: int | None = None,
    kernels: KernelSet = sets.CPU,
) -> RefinerCertificate:
    """Refine twice, plain and fast, and count the differences.

    Plain: ONNX Runtime on the CPU, kernels/*/reference.py, one tile, nothing left out. Fast: what `maskrt refine` does
    on the given provider. Both decode the pixels of the same selection.

    Raises:
        InputError, NetworkError: as the refiner does.
    """
    with open_refiner(bundle, provider, threads, kernels) as fast:
        fast(rgb, rough)  # compiles or loads the kernels
        start = time.perf_counter()
        ours = fast(rgb, rough).probability
        fast_s = time.perf_counter() - start
    settings = msgspec.structs.replace(fast.settings, tile=MAX_SIDE, memory_limit_mb=None)
    sessions, (spec, _) = Sessions(bundle, "cpu", threads), refiner_of(bundle)
    with Refiner(sessions, spec, settings, sets.REFERENCE, lazy=False) as plain:
        start = time.perf_counter()
        reference = plain(rgb, rough).probability
        plain_s = time.perf_counter() - start
    differs = (ours > 0.5) != (reference > 0.5)
    ties = differs & (np.abs(reference - 0.5) < TIE)
    return RefinerCertificate(
        name=name,
        pixels=differs.size,
        ties=int(ties.sum()),
        different=int((differs & ~ties).sum()),
        largest=float(np.abs(ours - reference).max()),
        plain_s=plain_s,
        fast_s=fast_s,
    )
