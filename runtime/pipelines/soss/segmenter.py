"""The semantic branch, which turns each ROI into class probabilities at the ROI's own resolution."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.kernels import sets
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.batching import in_halves
from maskrt.runtime.bundle.specs import SegmenterSpec
from maskrt.runtime.engines.session import Session
from maskrt.runtime.errors import NetworkError
from maskrt.runtime.numeric import softmax
from maskrt.runtime.region import fit_size_hw


class Segmenter:
    """A segmenter, which runs its session as the bundle declares.

    The ROI is resized to fit `input_hw`, padded with black on the right and below, normalised, and run. The softmax of
    the unpadded part is resized back to the ROI (bilinear, half-pixel centres).
    """

    def __init__(self, session: Session, spec: SegmenterSpec, kernels: KernelSet = sets.CPU) -> None:
        self._session = session
        self._spec = spec
        self._kernels = kernels
        ((self._input, (_, shape)),) = session.inputs.items()
        (self._output,) = session.outputs
        self._one_by_one = bool(shape) and shape[0] == 1

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Return the class probabilities, float32 [C, H, W], of each image, uint8 [H, W, 3], of any size.

        The network runs once for all images; if its input is [1, 3, H, W], it runs once for each.

        Raises:
            NetworkError: the network's output has another shape than the bundle declares, or holds NaN.
            OutOfMemory: not even half of the images fit.
        """
        sizes = [fit_size_hw((rgb.shape[0], rgb.shape[1]), self._spec.input_hw) for rgb in images]
        inputs = [self._normalised(rgb, size_hw) for rgb, size_hw in zip(images, sizes, strict=True)]
        step = 1 if self._one_by_one else max(1, len(inputs))
        runs = [
            logits
            for first in range(0, len(inputs), step)
            for logits in in_halves(self._run, inputs[first : first + step])
        ]
        every = (logits for run in runs for logits in run)
        return [self._probabilities(*one) for one in zip(every, images, sizes, strict=True)]

    def _normalised(self, rgb: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.float32]:
        """Return an image as the network takes it, float32 [3, H, W]."""
        spec = self._spec
        resized = Image.fromarray(rgb).resize(size_hw[::-1], Image.Resampling.BILINEAR)
        padded = np.zeros((*spec.input_hw, 3), np.float32)
        padded[: size_hw[0], : size_hw[1]] = np.asarray(resized, dtype=np.float32) / 255
        padded -= np.array(spec.mean, np.float32)
        padded /= np.array(spec.std, np.float32)
        return padded.transpose(2, 0, 1)

    def _run(self, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the logits, float32 [B, C, H, W]."""
        logits = self._session.run({self._input: np.stack(inputs)})[self._output]
        expected = (len(inputs), len(self._spec.classes), *self._spec.input_hw)
        if logits.shape != expected:
            raise NetworkError(f"the segmenter returned {logits.shape}, the bundle declares {expected}: export again")
        return logits

    def _probabilities(
        self, logits: NDArray[np.float32], rgb: NDArray[np.uint8], size_hw: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Return an image's probabilities at its own size, from its logits, float32 [C, H, W], with padding."""
        probabilities = softmax(logits[:, : size_hw[0], : size_hw[1]])
        out = np.empty((len(logits), *rgb.shape[:2]), np.float32)
        self._kernels.resize_bilinear(probabilities, out)
        return out
