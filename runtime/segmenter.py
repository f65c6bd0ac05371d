"""The semantic branch: ROI in, class probabilities at ROI resolution out."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.kernels import sets
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle import SegmenterSpec
from maskrt.runtime.errors import NetworkError
from maskrt.runtime.region import fit_size_hw
from maskrt.runtime.session import Session


class Segmenter:
    """Runs a segmenter session as its bundle declares.

    The ROI is resized so that it fits `input_hw`, padded with black on the right and below, normalised, and run; the
    softmax of the unpadded part is resized back to the ROI (bilinear, half-pixel centres).
    """

    def __init__(self, session: Session, spec: SegmenterSpec, kernels: KernelSet = sets.CPU) -> None:
        self._session = session
        self._spec = spec
        self._kernels = kernels
        (self._input,) = session.inputs
        (self._output,) = session.outputs

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities, float32 [C, H, W], of a uint8 [H, W, 3] image.

        Raises:
            NetworkError: the network's output has another shape than the bundle declares, or holds NaN.
        """
        spec = self._spec
        size_hw = fit_size_hw((rgb.shape[0], rgb.shape[1]), spec.input_hw)
        resized = Image.fromarray(rgb).resize(size_hw[::-1], Image.Resampling.BILINEAR)
        padded = np.zeros((*spec.input_hw, 3), np.float32)
        padded[: size_hw[0], : size_hw[1]] = np.asarray(resized, dtype=np.float32) / 255
        normalised = (padded - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
        feeds = {self._input: np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])}
        logits = self._session.run(feeds)[self._output]
        expected = (1, len(spec.classes), *spec.input_hw)
        if logits.shape != expected:
            raise NetworkError(f"the segmenter returned {logits.shape}, the bundle declares {expected}: export again")
        probabilities = softmax(logits[0, :, : size_hw[0], : size_hw[1]])
        out = np.empty((len(spec.classes), *rgb.shape[:2]), np.float32)
        self._kernels.resize_bilinear(probabilities, out)
        return out


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the first axis, float32."""
    exponentials = np.exp(logits - logits.max(axis=0))
    return np.ascontiguousarray(exponentials / exponentials.sum(axis=0), dtype=np.float32)
