"""CRM's cascade, which refines a rough mask of a picture tile by tile.

Each stage of the cascade reads the picture at a larger scale and decodes the whole mask, from which the next stage
starts. The answer is the public code's; the way there is not: see docs/design/refine.md.

Source: Shen et al. 2022, test.py of the public code, and chapters 3.1 and 4.2 of the document on refinement.
"""

from dataclasses import dataclass, field
from io import BytesIO
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.arrays import Floats, Mask
from maskrt.kernels.jit import thread_limit
from maskrt.kernels.pixel_decoder.types import DecoderWeights
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.specs import RefinementSpec, RefinerSpec
from maskrt.runtime.closeable import Closeable
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.engines.model_file import read_checked
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.pipelines.refine.selections import selection_of
from maskrt.runtime.pipelines.refine.stage import CascadeStage, StageResources
from maskrt.runtime.pipelines.refine.tiles import fitting_tile

MAX_WEIGHTS = 64 << 20  # bytes that a pixel decoder may unpack to; the published one has 0.3 MB

MAX_SIDE = 16384


@dataclass(frozen=True)
class Refined:
    """A refined mask.

    probability: float32 [H, W]; mask: bool [H, W], true where the probability exceeds a half. decoded_fraction: share
    of the pixels of all stages that were decoded.
    """

    probability: Floats
    decoded_fraction: float
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def mask(self) -> Mask:
        """Bool [H, W]."""
        return self.probability > 0.5


class Refiner(Closeable):
    """A bundle's refiner, loaded, for pictures of any size."""

    def __init__(
        self,
        sessions: Sessions,
        spec: RefinerSpec,
        settings: RefinementSpec,
        kernels: KernelSet = sets.CPU,
        lazy: bool = True,
    ) -> None:
        """Load the refiner's graphs.

        Args:
            sessions: the bundle's; closing the refiner closes them.
            lazy: leave out windows in which nothing is decoded; the answer is the same.

        Raises:
            BundleError: a model is missing or does not fit.
            InputError: there is no such selection.
            ProviderUnavailable: the provider is not on this machine.
        """
        self._spec, self.settings, self._threads = spec, settings, sessions.threads
        if settings.select == "off":
            raise InputError("select is off: choose full, bbox, contour, strided:N or adaptive")
        self._sessions = sessions
        with sessions.loading():
            fused = {"pixels", "inside", "middle", "coarse"}
            self._resources = StageResources(
                backbone=sessions.load("refiner_backbone", inputs={"pixels"}, outputs={"middle", "coarse"}),
                coarse=sessions.load("refiner_coarse", inputs={"coarse"}, outputs={"taps"}, repeated=True),
                fusion=sessions.load("refiner_fusion", inputs=fused, outputs={"features"}, repeated=True),
                weights=read_weights(sessions.bundle, "refiner_decoder"),
                kernels=kernels,
                selection=selection_of(settings.select, kernels),
                halo=spec.halo,
                scale=(1 / (255 * np.array(spec.std))).astype(np.float32),
                offset=(-np.array(spec.mean) / np.array(spec.std)).astype(np.float32),
                lazy=lazy,
            )

    def __call__(self, rgb: NDArray[np.uint8], rough: NDArray[np.generic]) -> Refined:
        """Refine one mask.

        Args:
            rgb: uint8 [H, W, 3].
            rough: bool [H, W], or float32 [H, W] in [0, 1].

        Raises:
            InputError: the arrays are not as above, differ in size, are too large, or do not fit into the allowed
                memory.
            NetworkError: a network returned NaN or infinity.
        """
        rough = checked_rough(rgb, rough)
        height, width = rough.shape
        pad = self._spec.padding
        padded_hw = height + 2 * pad, width + 2 * pad
        limit = self.settings.memory_limit_mb
        tile = fitting_tile(padded_hw, self.settings.tile, limit, self._width, self._spec.halo)
        timings_ms: dict[str, float] = {}
        # Indices do the padding, so the picture is never copied.
        places = tuple(_reflected(size, pad) for size in (height, width))
        current = rough[np.ix_(*places)]
        first, before = current > 0.5, None
        decoded = 0
        with thread_limit(self._threads):
            for scale in self._spec.scales:
                limits = self._resources.selection.limits(first, current, before)
                # An empty mask stays empty.
                if float(current.sum(dtype=np.float64)) < 1:
                    current = np.zeros_like(current)
                else:
                    stage = CascadeStage(self._resources, rgb, current, places, scale, timings_ms)
                    current, count = stage.decode(tile, limits)
                    decoded += count
                before = scale
        inner = np.ascontiguousarray(current[pad : pad + height, pad : pad + width])
        return Refined(inner, decoded / (len(self._spec.scales) * current.size), timings_ms)

    @property
    def _width(self) -> int:
        """Channels of the network's stem, for the memory estimate; the published number if the graph leaves it open."""
        shape = self._resources.backbone.outputs["middle"][1]
        return shape[1] or 64

    def close(self) -> None:
        """Free the sessions."""
        self._sessions.close()


def checked_rough(rgb: NDArray[np.uint8], rough: NDArray[np.generic]) -> Floats:
    """Return a rough mask as float32 [H, W].

    Raises:
        InputError: picture or mask is not as Refiner takes it, or their sizes differ.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise InputError(f"expected an RGB picture, uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    if rough.shape != rgb.shape[:2]:
        raise InputError(
            f"the picture is {rgb.shape[1]} x {rgb.shape[0]}, its mask has shape {list(rough.shape)}: "
            "make the mask as large as the picture"
        )
    if max(rough.shape) > MAX_SIDE:
        raise InputError(f"the picture is {rgb.shape[1]} x {rgb.shape[0]}: sides of up to {MAX_SIDE} can be refined")
    if rough.dtype not in (np.bool_, np.float32):
        raise InputError(f"the mask is {rough.dtype}: expected bool, or float32 in [0, 1]")
    values = rough.astype(np.float32)
    if not (values.min() >= 0 and values.max() <= 1):
        raise InputError("the mask has values outside [0, 1], or NaN")
    return values


def read_weights(bundle: Bundle, role: str) -> DecoderWeights:
    """Read the weights of a bundle's pixel decoder.

    Raises:
        BundleError: the file is missing, or is no archive of the needed arrays.
    """
    path = bundle.model_path(role)
    data = read_checked(path, bundle.model(role))
    try:
        unpacked = sum(part.file_size for part in ZipFile(BytesIO(data)).infolist())
        if unpacked > MAX_WEIGHTS:
            raise BundleError(f"{path} unpacks to {unpacked} bytes, a pixel decoder has at most {MAX_WEIGHTS}")
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in DecoderWeights.__dataclass_fields__}
        return DecoderWeights(**{**values, "last_bias": np.float32(values["last_bias"])})
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise BundleError(f"{path} does not hold a pixel decoder ({error}): export the bundle again") from error


def _reflected(size: int, pad: int) -> NDArray[np.int64]:
    """Return the index of the pixel at each of size + 2 * pad places; a tiny picture is reflected repeatedly."""
    return np.pad(np.arange(size), pad, mode="reflect" if size > 1 else "edge")
