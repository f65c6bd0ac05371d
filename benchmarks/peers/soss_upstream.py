"""SOSS as its source document builds it: segment_anything's mask generator, voting over dense masks.

Written from the document, without maskrt's runtime: only the settings and the weights are shared with ours.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from maskrt.benchmarks.peers.dense_voting import dense_vote
from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins
from maskrt.runtime.bundle.manifest import SossManifest

Record = dict[str, Any]  # of one mask, as SamAutomaticMaskGenerator returns it with uncompressed RLE


class SossUpstream:
    """Takes a frame and a ROI, and returns upstream's mask records and the label of every pixel."""

    def __init__(
        self, segmenter: Callable[[torch.Tensor], torch.Tensor], generator: Any, manifest: SossManifest
    ) -> None:
        """Keep the parts. segmenter: float32 [1, 3, H, W] to logits; generator: a SamAutomaticMaskGenerator."""
        with torchvision_or_stand_ins():
            from segment_anything.utils.amg import rle_to_mask
        self._rle_to_mask = rle_to_mask
        self._segmenter = segmenter
        self._spec, self._uncovered = manifest.segmenter, manifest.voting.uncovered
        self._generator = generator

    def __call__(
        self, rgb: NDArray[np.uint8], roi: tuple[int, int, int, int]
    ) -> tuple[list[Record], NDArray[np.uint8]]:
        """Segment uint8 [H, W, 3] within x, y, width, height.

        Returns:
            The records in coordinates of the ROI, and uint8 [H, W], the label in the frame, 0 outside the ROI.
        """
        x, y, width, height = roi
        crop = np.ascontiguousarray(rgb[y : y + height, x : x + width])
        probabilities = self._probabilities(crop)
        records = self._generator.generate(crop)
        # generate() does this with output_mode="binary_mask"; it is done here so that the run lengths can be compared.
        dense = [self._rle_to_mask(record["segmentation"]) for record in records]
        masks = np.stack(dense) if dense else np.zeros((0, height, width), np.bool_)
        label = np.zeros(rgb.shape[:2], np.uint8)
        label[y : y + height, x : x + width] = dense_vote(probabilities, masks, self._uncovered)
        return records, label

    @torch.inference_mode()
    def _probabilities(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the softmax, float32 [C, H, W]: the crop is scaled into the input, padded with black, scaled back."""
        (input_height, input_width), (height, width) = self._spec.input_hw, crop.shape[:2]
        scale = min(input_height / height, input_width / width)
        fitted = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        small = Image.fromarray(crop).resize(fitted[::-1], Image.Resampling.BILINEAR)
        padded = torch.zeros(3, input_height, input_width)
        padded[:, : fitted[0], : fitted[1]] = torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (self._spec.mean, self._spec.std))
        logits = self._segmenter(((padded - mean) / std)[None])[:, :, : fitted[0], : fitted[1]]
        back = functional.interpolate(logits.softmax(1), size=(height, width), mode="bilinear", align_corners=False)
        result: NDArray[np.float32] = back[0].numpy()
        return result
