"""The certificate of a two-stage segmenter: compares its plain and fast way on this machine and one image."""

import time

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.jit import thread_limit
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.evaluation.verify import TIE, ImageCertificate
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline, labels_of
from maskrt.runtime.region import checked_roi, cut
from maskrt.runtime.types import Roi


class StagesCertificate(ImageCertificate, frozen=True, kw_only=True):
    """The certificate of a two-stage segmenter on one image.

    windows: number that stage 2 looked at; window_differences: number that only one of the two ways looked at; pixels:
    number of the region's pixels; ties: pixels of another class whose two largest plain probabilities are within TIE;
    different: other pixels of another class; largest: the largest difference of two probabilities.
    """

    windows: int
    window_differences: int
    pixels: int
    largest: float

    @property
    def summary(self) -> str:
        """The certificate in words."""
        return (
            f"{self.windows} windows, {self.window_differences} others; {self.pixels} pixels, {self.ties} ties, "
            f"{self.different} different; probabilities within {self.largest:.1e}"
        )


def certify_stages(
    bundle: Bundle,
    name: str,
    rgb: NDArray[np.uint8],
    roi: Roi | None,
    provider: str = "cpu",
    threads: int | None = None,
    kernels: KernelSet = sets.CPU,
) -> StagesCertificate:
    """Segment twice, plain and fast, and count the differences.

    Plain: ONNX Runtime on the CPU, patch by patch, and kernels/*/reference.py, which take means of stage 1's map at
    full size. Fast: what `maskrt run` does on the given provider.

    Raises:
        InputError, NetworkError: as the pipeline does.
    """
    region = cut(rgb, checked_roi(rgb, roi))
    with TwoStagePipeline(bundle, provider, threads, kernels) as fast, thread_limit(threads):
        fast.segmenter([region])  # compiles or loads the kernels
        start = time.perf_counter()
        (ours,) = fast.segmenter.look([region], {})
        fast_s = time.perf_counter() - start
    with TwoStagePipeline(bundle, "cpu", threads, sets.REFERENCE, one_by_one=True) as plain:
        start = time.perf_counter()
        (reference,) = plain.segmenter.look([region], {})
        plain_s = time.perf_counter() - start
    differs = labels_of(ours.probabilities) != labels_of(reference.probabilities)
    second, first = np.sort(reference.probabilities, axis=0)[-2:]
    ties = differs & (first - second < TIE)
    others = set(ours.stages.windows_xywh) ^ set(reference.stages.windows_xywh)
    return StagesCertificate(
        name=name,
        windows=len(reference.stages.windows_xywh),
        window_differences=len(others),
        pixels=differs.size,
        ties=int(ties.sum()),
        different=int((differs & ~ties).sum()),
        largest=float(np.abs(ours.probabilities - reference.probabilities).max()),
        plain_s=plain_s,
        fast_s=fast_s,
    )
