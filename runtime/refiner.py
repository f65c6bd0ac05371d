"""CRM's cascade: a picture and a rough mask to a refined one, tile by tile.

Turn by turn the picture is read at a larger scale, and every turn decodes the whole mask, which the next one starts
from. The answer is that of the public code; the work is not: see ARCHITECTURE.md.

Source: Shen et al. 2022, test.py of the public code, and chapters 3.1 and 4.2 of the document on refinement.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.jit import thread_limit
from maskrt.kernels.pixel_decoder.reference import DecoderWeights, Grid
from maskrt.kernels.pixel_decoder.tables import axis_table
from maskrt.kernels.sampling.reference import OUTSIDE, Taps, resize_taps
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle import Bundle, RefinerSpec, RefineSpec
from maskrt.runtime.closing import Closing
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.mask_decoder import require_names
from maskrt.runtime.refine_windows import Span, backbone_tile, fitting_tile, spans
from maskrt.runtime.selections import Part, selection_of
from maskrt.runtime.session import Session, open_session
from maskrt.runtime.timing import timed

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Progress = Callable[[int, int], None]  # told turns done, of how many

MAX_SIDE = 16384
STRIDE = 8  # pixels of a cell of the coarsest features
LEAST_TILE = 64


@dataclass(frozen=True)
class Refined:
    """A refined mask.

    probability: float32 [H, W]; mask: bool [H, W], where it exceeds a half. decoded_fraction: share of the pixels of
    all turns that were decoded.
    """

    probability: Floats
    decoded_fraction: float
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def mask(self) -> Mask:
        """Bool [H, W]."""
        return self.probability > 0.5


class Refiner(Closing):
    """A bundle's refiner, ready for pictures of any size."""

    def __init__(
        self,
        bundle: Bundle,
        spec: RefinerSpec,
        settings: RefineSpec,
        provider: str = "cpu",
        threads: int | None = None,
        kernels: KernelSet = sets.CPU,
        lazy: bool = True,
    ) -> None:
        """lazy: leave out windows in which nothing is decoded; the answer is the same.

        Raises BundleError when a model is missing or does not fit, InputError for a selection that there is not."""
        self._spec, self._settings, self._threads, self._kernels = spec, settings, threads, kernels
        if settings.select == "off":
            raise InputError("select is off: choose full, bbox, contour, strided:N or adaptive")
        self._lazy = lazy
        self._selection = selection_of(settings.select, kernels)
        self._scale = (1 / np.array([255 * s for s in spec.std])).astype(np.float32)
        self._offset = (-np.array(spec.mean) / np.array(spec.std)).astype(np.float32)
        self._weights = read_weights(bundle, "refiner_decoder")
        with ExitStack() as stack:

            def load(role: str, inputs: set[str], outputs: set[str], repeated: bool = True) -> Session:
                session = open_session(bundle.model_path(role), provider, threads, repeated=repeated)
                stack.enter_context(session)
                require_names(session, role, inputs, outputs)
                return session

            self._backbone = load("refiner_backbone", {"pixels"}, {"middle", "coarse"}, repeated=False)
            self._coarse = load("refiner_coarse", {"coarse"}, {"taps"})
            self._fusion = load("refiner_fusion", {"pixels", "inside", "middle", "coarse"}, {"features"})
            self._resources = stack.pop_all()

    def __call__(
        self, rgb: NDArray[np.uint8], rough: NDArray[np.generic], progress: Progress = lambda done, of: None
    ) -> Refined:
        """Refine one mask.

        Args:
            rgb: uint8 [H, W, 3].
            rough: bool [H, W], or float32 [H, W] in [0, 1].

        Raises:
            InputError: the arrays are not as above, or not of the same size, or too large, or do not fit into the
                memory allowed.
            NetworkError: a network returned NaN or infinity.
        """
        rough = checked_rough(rgb, rough)
        height, width = rough.shape
        pad = self._spec.padding
        padded_hw = height + 2 * pad, width + 2 * pad
        limit = self._settings.memory_limit_mb
        tile = fitting_tile(padded_hw, self._settings.tile, limit, self._width, self._spec.halo)
        timings_ms: dict[str, float] = {}
        # The padding is a matter of indices: the picture is never copied.
        places = tuple(_reflected(size, pad) for size in (height, width))
        current = rough[np.ix_(*places)]
        first, before = current > 0.5, None
        decoded = 0
        with thread_limit(self._threads):
            for turn, scale in enumerate(self._spec.scales):
                limits = self._selection.limits(first, current > 0.5, before)
                # A mask that is empty stays so.
                if float(current.sum(dtype=np.float64)) < 1:
                    current = np.zeros_like(current)
                else:
                    view = _Turn(self, rgb, current, places, scale, timings_ms)
                    current, count = view.decode(tile, limits)
                    decoded += count
                before = scale
                progress(turn + 1, len(self._spec.scales))
        inner = np.ascontiguousarray(current[pad : pad + height, pad : pad + width])
        return Refined(inner, decoded / (len(self._spec.scales) * current.size), timings_ms)

    @property
    def _width(self) -> int:
        """Channels of the network's stem."""
        shape = self._backbone.outputs["middle"][1]
        return shape[1] or 64

    def close(self) -> None:
        """Free the sessions."""
        self._resources.close()


class _Turn:
    """One turn of the cascade: a picture at one scale, and the mask that is decoded from it."""

    def __init__(
        self,
        refiner: Refiner,
        rgb: NDArray[np.uint8],
        current: Floats,
        places: tuple[NDArray[np.int64], ...],
        scale: float,
        timings_ms: dict[str, float],
    ) -> None:
        self._refiner, self._current, self._places, self._timings_ms = refiner, current, places, timings_ms
        self._planes = rgb.transpose(2, 0, 1)
        self._size_hw = tuple(max(1, round(size * scale)) for size in current.shape)
        self._cells_hw = tuple(-(-size // 2) for size in self._size_hw)
        rows, columns = (axis_table(size, cells) for size, cells in zip(current.shape, self._cells_hw, strict=True))
        self._grid = Grid.of(rows, columns, refiner._weights)

    def decode(self, tile: int, limits: Mask | None) -> tuple[Floats, int]:
        """The mask after this turn, and how many pixels were decoded for it."""
        found, count = self._current.copy(), 0
        with timed(self._timings_ms, "backbone"):
            scales = self._backbone(tile, limits)
        step = self._refiner._selection.step
        height, width = self._current.shape
        if self._refiner._lazy and limits is not None:
            tile = max(LEAST_TILE, tile // 2)  # smaller: more of them have nothing to decode
        for y in spans(height, tile, step=step):
            for x in spans(width, tile, step=step):
                own = slice(y.begin, y.end), slice(x.begin, x.end)
                if self._refiner._lazy and limits is not None and not limits[own].any():
                    continue
                found[own], decoded = self._decode_tile(y, x, scales, limits)
                count += decoded
        return found, count

    def _decode_tile(self, y: Span, x: Span, scales: tuple[Floats, ...], limits: Mask | None) -> tuple[Floats, int]:
        # One row and column more: the lattice points that the last of its own pixels look at.
        more = self._refiner._selection.step > 1
        rows, columns = (
            slice(span.begin, min(span.end + more, size))
            for span, size in zip((y, x), self._current.shape, strict=True)
        )
        origin, features = self._fuse(rows, columns, scales)
        width = self._current.shape[1]

        def decode(pixels: NDArray[np.int64]) -> Floats:
            down, across = np.divmod(pixels, columns.stop - columns.start)
            probability = np.empty(pixels.size, np.float32)
            with timed(self._timings_ms, "decode"):
                at = (down + rows.start) * width + across + columns.start
                self._refiner._kernels.decode_pixels(
                    features, origin, self._grid, at, self._refiner._weights, probability
                )
            return probability

        own = slice(0, y.end - y.begin), slice(0, x.end - x.begin)
        part = Part(self._current[rows, columns].copy(), own, decode)
        self._refiner._selection.decode(part, None if limits is None else limits[rows, columns])
        return part.found[own], part.decoded

    def _backbone(self, tile: int, limits: Mask | None) -> tuple[Floats, ...]:
        """Both coarser scales of the whole picture, from windows; those that no pixel needs stay zero."""
        height, width = self._size_hw
        halo = self._refiner._spec.halo
        whole: tuple[Floats, ...] = ()
        for y in spans(height, backbone_tile(height, tile), halo, STRIDE):
            for x in spans(width, backbone_tile(width, tile), halo, STRIDE):
                if self._refiner._lazy and limits is not None and not self._needed(limits, y, x):
                    continue
                pixels = self._pixels(y.first, y.last, x.first, x.last)
                outputs = self._refiner._backbone.run({"pixels": pixels})
                maps = outputs["middle"], outputs["coarse"]
                if (y.end - y.begin, x.end - x.begin) == self._size_hw:
                    return maps
                if not whole:
                    whole = tuple(
                        np.zeros((1, part.shape[1], -(-height // s), -(-width // s)), np.float32)
                        for part, s in zip(maps, (4, 8), strict=True)
                    )
                for target, part, s in zip(whole, maps, (4, 8), strict=True):
                    rows, columns = slice(y.begin // s, -(-y.end // s)), slice(x.begin // s, -(-x.end // s))
                    top, left = rows.start - y.first // s, columns.start - x.first // s
                    target[:, :, rows, columns] = part[
                        :, :, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start
                    ]
        return whole

    def _needed(self, limits: Mask, y: Span, x: Span) -> bool:
        """Whether a pixel within the limits reads a feature that a window of the backbone takes part in."""
        window = []
        for span, size, full in zip((y, x), self._size_hw, limits.shape, strict=True):
            reach = 3 * STRIDE  # from a pixel to its cell, the convolution's and the interpolation's neighbours
            window.append(slice(max(0, (span.begin - reach) * full // size), -(-(span.end + reach) * full // size)))
        return bool(limits[tuple(window)].any())

    def _fuse(self, rows: slice, columns: slice, scales: tuple[Floats, ...]) -> tuple[tuple[int, int], Floats]:
        """The features that some rows and columns of pixels read, and where they begin."""
        cells = []
        for part, table in ((rows, self._grid.rows), (columns, self._grid.columns)):
            cells.append((int(table.cells[part.start, 0]), int(table.cells[part.stop - 1, 1]) + 1))
        (top, bottom), (left, right) = cells
        with timed(self._timings_ms, "fusion"):
            # The 3 x 3 convolution reads one cell around, the stem's 7 x 7 three pixels around a cell's first.
            pixels = self._pixels(2 * (top - 1) - 3, 2 * bottom + 4, 2 * (left - 1) - 3, 2 * right + 4)
            middle, coarse = (self._window(s, (top - 1, bottom + 1), (left - 1, right + 1)) for s in scales)
            inside = np.zeros((1, 1, bottom - top + 2, right - left + 2), np.float32)
            height, width = self._cells_hw
            inside[..., max(0, 1 - top) : height + 1 - top, max(0, 1 - left) : width + 1 - left] = 1
            feeds = {
                "pixels": pixels,
                "inside": inside,
                "middle": self._sampled(*middle),
                "coarse": self._convolved(*coarse),
            }
            features = self._refiner._fusion.run(feeds)["features"]
        return (top, left), features

    def _pixels(self, top: int, bottom: int, left: int, right: int) -> Floats:
        """Normalised picture and mask, float32 [1, 4, h, w], of a window at this turn's scale; 0 beyond it."""
        out = np.empty((1, 4, bottom - top, right - left), np.float32)
        taps = [
            resize_taps(full, size, *window)
            for full, size, window in zip(
                self._current.shape, self._size_hw, ((top, bottom), (left, right)), strict=True
            )
        ]
        sample = self._refiner._kernels.sample_bilinear
        shown = [tap.through(places) for tap, places in zip(taps, self._places, strict=True)]
        sample(self._planes, *shown, self._refiner._scale, self._refiner._offset, out[0, :3])
        sample(self._current[None], *taps, np.full(1, 2, np.float32), np.full(1, -1, np.float32), out[0, 3:])
        return out

    def _window(self, scale: Floats, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[Floats, Taps, Taps]:
        """What some cells read of a coarser scale [1, C, h, w], and how."""
        taps, read = [], []
        for size, cells, window in zip(scale.shape[2:], self._cells_hw, (rows, columns), strict=True):
            places = resize_taps(size, cells, *window)
            inside = places.low != OUTSIDE
            first, last = int(places.low[inside].min()), int(places.high[inside].max())
            taps.append(places.through(np.arange(size) - first))
            read.append(slice(first, last + 1))
        return np.ascontiguousarray(scale[:, :, read[0], read[1]]), taps[0], taps[1]

    def _sampled(self, window: Floats, rows: Taps, columns: Taps) -> Floats:
        """A coarser scale at some cells, 0 beyond the picture: [1, C, m + 2, n + 2]."""
        out = np.empty((1, window.shape[1], rows.low.size, columns.low.size), np.float32)
        one, zero = np.ones(out.shape[1], np.float32), np.zeros(out.shape[1], np.float32)
        self._refiner._kernels.sample_bilinear(window[0], rows, columns, one, zero, out[0])
        return out

    def _convolved(self, window: Floats, rows: Taps, columns: Taps) -> Floats:
        """The coarsest scale's part in the fusion's convolution: [1, features, m, n]."""
        products = self._refiner._coarse.run({"coarse": window})["taps"]
        out = np.empty((1, products.shape[1], rows.low.size - 2, columns.low.size - 2), np.float32)
        self._refiner._kernels.add_shifted(products, rows, columns, out[0])
        return out


def checked_rough(rgb: NDArray[np.uint8], rough: NDArray[np.generic]) -> Floats:
    """A rough mask as float32 [H, W].

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
    """The pixel decoder of a bundle.

    Raises:
        BundleError: it is missing, or no archive of the arrays wanted.
    """
    path = bundle.model_path(role)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in DecoderWeights.__dataclass_fields__}
        return DecoderWeights(**{**values, "last_bias": np.float32(values["last_bias"])})
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise BundleError(f"{path} does not hold a pixel decoder ({error}): export the bundle again") from error


def _reflected(size: int, pad: int) -> NDArray[np.int64]:
    """Index of the pixel that each of size + 2 * pad places shows; of a tiny picture, reflected again and again."""
    return np.pad(np.arange(size), pad, mode="reflect" if size > 1 else "edge")
