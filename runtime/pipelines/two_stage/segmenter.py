"""Two-stage segmentation: one network sees the whole region small, a second looks again where the first is uncertain.

Source: D. Teixeira e Silva et al., "Two-stage Semantic Segmentation in Neural Networks", section 3. The public code
differs where maskrt.runtime.bundle.two_stage_spec says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np
from PIL import Image

from maskrt.kernels import sets
from maskrt.kernels.arrays import Bytes, Floats, Indices
from maskrt.kernels.patches.reference import grid_of
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.batching import groups
from maskrt.runtime.bundle.two_stage_spec import (
    PatchSelectionSpec,
    TwoStageSpec,
    largest_low,
    low_size,
    patch_side,
    working_size,
)
from maskrt.runtime.engines.session import Session
from maskrt.runtime.pipelines.two_stage.network import StageNetwork, probabilities
from maskrt.runtime.pipelines.two_stage.windows import RAMPS, find_windows
from maskrt.runtime.timing import timed
from maskrt.runtime.types import Roi, Stages

Corners = Indices  # [K, 2], top and left


@dataclass(frozen=True)
class Look:
    """Both stages' answer on one region; probabilities: float32 [C, h, w] at its size; stages: in its pixels."""

    probabilities: Floats
    stages: Stages


class TwoStageSegmenter:
    """A segmenter that runs the two networks of a bundle on regions.

    1. The region is resized (Pillow, bilinear) to a square of `size`, or with fit=keep so that its longest side is
       `size`: the working picture. Resized to 1 / shrink of that, padded with black on the right and below, it goes
       through `low`.
    2. The probabilities (sigmoid or softmax) of the unpadded part are resized to the working size (bilinear, half-pixel
       centres) and divided into patches. Pixels of a patch beyond the picture are black and count in no mean.
    3. The patches with the most uncertain mean go through `high`, and its probabilities replace stage 1's there.
    4. The map is resized to the region.

    With two classes only the second's map is kept; the first's is 1 minus it. The patches of all regions of a call are
    one batch; maskrt.runtime.pipelines.two_stage.network limits how many run at a time.
    """

    def __init__(
        self,
        low: Session,
        high: Session,
        spec: TwoStageSpec,
        stages: PatchSelectionSpec,
        kernels: KernelSet = sets.CPU,
        one_by_one: bool = False,
    ) -> None:
        """Check networks, spec and settings against each other.

        Args:
            one_by_one: run the networks picture by picture and patch by patch; the answer is the same up to rounding.

        Raises:
            InputError: spec and settings do not fit each other.
            BundleError: a network takes or returns other shapes.
        """
        self._sessions, self._spec, self._stages, self._kernels = (low, high), spec, stages, kernels
        self._side = patch_side(spec, stages)
        self._low = StageNetwork("low", low, spec, largest_low(spec), one_by_one)
        self._high = StageNetwork("high", high, spec, self._side, one_by_one)
        if stages.windows != "off":
            self._high.require_size((self._side, self._side), f"patches={stages.patches}")
        values = np.arange(256, dtype=np.float32) / np.float32(255)
        mean, std = (np.array(numbers, np.float32)[:, None] for numbers in (spec.mean, spec.std))
        self._table = np.ascontiguousarray((values - mean) / std)

    def first_stage(self) -> "TwoStageSegmenter":
        """Return a segmenter with the same sessions that stops after stage 1."""
        alone = msgspec.structs.replace(self._stages, windows="off")
        return TwoStageSegmenter(*self._sessions, self._spec, alone, self._kernels)

    def __call__(self, regions: Sequence[Bytes]) -> list[Floats]:
        """Return the class probabilities, float32 [C, h, w], of each region, uint8 [h, w, 3].

        Raises:
            BundleError: stage 1's network has fixed sides that do not fit a region.
            NetworkError: a network's output has another shape than the bundle declares, or holds NaN.
            OutOfMemory: not even half of what a network takes at a time fits.
        """
        return [look.probabilities for look in self.look(regions, {})]

    def look(self, regions: Sequence[Bytes], timings_ms: dict[str, float]) -> list[Look]:
        """Segment as a call does, and also return what stage 2 looked at; adds stage -> ms to `timings_ms`."""
        with timed(timings_ms, "resize"):
            images = [self._image(region) for region in regions]
            sizes_hw = [working_size(self._spec, (region.shape[0], region.shape[1])) for region in regions]
            pictures = [self._scaled(*one) for one in zip(images, sizes_hw, strict=True)]
            small = [self._scaled(image, low_size(self._spec, hw)) for image, hw in zip(images, sizes_hw, strict=True)]
        with timed(timings_ms, "stage_1"):
            logits = self._first(small)
            maps = [self._resized(probabilities(low), size_hw) for low, size_hw in zip(logits, sizes_hw, strict=True)]
        with timed(timings_ms, "select"):
            corners = [
                find_windows(low, size_hw, self._spec, self._stages, self._kernels)
                for low, size_hw in zip(logits, sizes_hw, strict=True)
            ]
        with timed(timings_ms, "stage_2"):
            self._second(pictures, corners, maps)
        with timed(timings_ms, "assemble"):
            found = zip(regions, sizes_hw, corners, maps, strict=True)
            return [self._looked(*of_region) for of_region in found]

    def _image(self, region: Bytes) -> Image.Image:
        """Return a region in the networks' channels; a single channel is Pillow's luma, or a grey picture's grey."""
        image = Image.fromarray(region)
        return image.convert("L") if self._spec.channels == 1 else image

    def _scaled(self, image: Image.Image, size_hw: tuple[int, int]) -> Bytes:
        """Resize an image, to uint8 [H, W, channels]."""
        scaled = np.asarray(image.resize(size_hw[::-1], Image.Resampling.BILINEAR))
        return np.ascontiguousarray(scaled.reshape(*size_hw, self._spec.channels))

    def _first(self, pictures: Sequence[Bytes]) -> list[Floats]:
        """Return stage 1's logits without padding, float32 [L, h, w]; pictures of one padded size are one batch."""
        sizes_hw = [self._low.padded((picture.shape[0], picture.shape[1])) for picture in pictures]
        found: dict[int, Floats] = {}
        for indices in groups(sizes_hw):
            padded_hw = sizes_hw[indices[0]]
            self._low.require_size(padded_hw, "the region")
            batch = np.empty((len(indices), self._spec.channels, *padded_hw), np.float32)
            for place, index in enumerate(indices):
                whole = np.zeros((1, 2), np.int64)
                self._kernels.gather_patches(pictures[index], whole, self._table, batch[place : place + 1])
            for index, logits in zip(indices, self._low(batch), strict=True):
                height, width = pictures[index].shape[:2]
                found[index] = logits[:, :height, :width]
        return [found[index] for index in range(len(pictures))]

    def _second(self, pictures: Sequence[Bytes], corners: Sequence[Corners], maps: Sequence[Floats]) -> None:
        """Run stage 2 on all windows of all pictures, and blend its probabilities into the maps."""
        ends = np.cumsum([0, *(len(own) for own in corners)])
        if ends[-1] == 0:
            return
        batch = np.empty((ends[-1], self._spec.channels, self._side, self._side), np.float32)
        own = [slice(start, end) for start, end in pairwise(ends)]
        for picture, places, part in zip(pictures, corners, own, strict=True):
            self._kernels.gather_patches(picture, places, self._table, batch[part])
        found = np.stack([probabilities(logits) for logits in self._high(batch)])
        ramp = int(self._side * RAMPS[self._stages.windows])
        for places, part, probability in zip(corners, own, maps, strict=True):
            self._kernels.blend_patches(found[part], places, ramp, probability)

    def _resized(self, maps: Floats, size_hw: tuple[int, int]) -> Floats:
        out = np.empty((len(maps), *size_hw), np.float32)
        self._kernels.resize_bilinear(maps, out)
        return out

    def _looked(self, region: Bytes, working_hw: tuple[int, int], corners: Corners, maps: Floats) -> Look:
        size_hw = region.shape[0], region.shape[1]
        if working_hw != size_hw:
            maps = self._resized(maps, size_hw)
        if len(maps) == 1:
            maps = np.concatenate([1 - maps, maps])
        rows, columns = grid_of(working_hw, self._side)
        stages = Stages(
            working_hw=working_hw,
            padded_hw=(rows * self._side, columns * self._side),
            windows_xywh=tuple(_in_region(corner, self._side, working_hw, size_hw) for corner in corners),
        )
        return Look(maps, stages)


def _in_region(corner: Corners, side: int, working_hw: tuple[int, int], size_hw: tuple[int, int]) -> Roi:
    """Return a window in pixels of the region, cut at its edges; rounded half up."""
    starts, ends = [], []
    for start, working, size in zip(corner.tolist(), working_hw, size_hw, strict=True):
        starts.append(int(start * size / working + 0.5))
        ends.append(int(min(start + side, working) * size / working + 0.5))
    (top, left), (bottom, right) = starts, ends
    return left, top, right - left, bottom - top
