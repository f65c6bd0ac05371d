"""One stage of CRM's cascade, tile by tile; see maskrt.runtime.pipelines.refine.refiner."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats, Mask
from maskrt.kernels.pixel_decoder.tables import axis_table
from maskrt.kernels.pixel_decoder.types import DecoderWeights, Grid
from maskrt.kernels.sampling.reference import resize_taps
from maskrt.kernels.sampling.types import OUTSIDE, Taps
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.engines.session import Session
from maskrt.runtime.pipelines.refine.selections import Selection, Tile
from maskrt.runtime.pipelines.refine.tiles import Span, backbone_tile, spans
from maskrt.runtime.timing import timed

STRIDE = 8  # pixels of a cell of the coarsest features
LEAST_TILE = 64


@dataclass(frozen=True)
class StageResources:
    """The graphs, weights and settings that all stages share.

    backbone, coarse, fusion: the graphs; weights: the pixel decoder's; halo: see RefinerSpec; scale, offset: float32
    [3], the network reads uint8 RGB * scale + offset; lazy: leave out windows in which nothing is decoded, the answer
    is the same.
    """

    backbone: Session
    coarse: Session
    fusion: Session
    weights: DecoderWeights
    kernels: KernelSet
    selection: Selection
    halo: int
    scale: Floats
    offset: Floats
    lazy: bool


class CascadeStage:
    """One stage of the cascade: a picture at one scale, and the mask that is decoded from it."""

    def __init__(
        self,
        resources: StageResources,
        rgb: NDArray[np.uint8],
        current: Floats,
        places: tuple[NDArray[np.int64], ...],
        scale: float,
        timings_ms: dict[str, float],
    ) -> None:
        self._resources, self._current, self._places, self._timings_ms = resources, current, places, timings_ms
        self._planes = rgb.transpose(2, 0, 1)
        self._size_hw = tuple(max(1, round(size * scale)) for size in current.shape)
        self._cells_hw = tuple(-(-size // 2) for size in self._size_hw)
        rows, columns = (axis_table(size, cells) for size, cells in zip(current.shape, self._cells_hw, strict=True))
        self._grid = Grid.of(rows, columns, resources.weights)

    def decode(self, tile: int, limits: Mask | None) -> tuple[Floats, int]:
        """Return the mask after this stage, and how many pixels were decoded for it."""
        found, count = self._current.copy(), 0
        with timed(self._timings_ms, "backbone"):
            scales = self._backbone(tile, limits)
        step = self._resources.selection.step
        height, width = self._current.shape
        if self._resources.lazy and limits is not None:
            tile = max(LEAST_TILE, tile // 2)  # of smaller tiles, more have nothing to decode
        for y in spans(height, tile, step=step):
            for x in spans(width, tile, step=step):
                own = slice(y.begin, y.end), slice(x.begin, x.end)
                lead = self._resources.selection.lead
                seen = slice(max(0, y.begin - lead), y.end), slice(max(0, x.begin - lead), x.end)
                if self._resources.lazy and limits is not None and not limits[seen].any():
                    continue
                found[own], decoded = self._decode_tile(y, x, scales, limits)
                count += decoded
        return found, count

    def _decode_tile(self, y: Span, x: Span, scales: tuple[Floats, ...], limits: Mask | None) -> tuple[Floats, int]:
        # One more row and column: the lattice points that the last of its own pixels need.
        lead, more = self._resources.selection.lead, self._resources.selection.step > 1
        rows, columns = (
            slice(max(0, span.begin - lead), min(span.end + more, size))
            for span, size in zip((y, x), self._current.shape, strict=True)
        )
        origin, features = self._fuse(rows, columns, scales)
        width = self._current.shape[1]

        def decode(pixels: NDArray[np.int64]) -> Floats:
            down, across = np.divmod(pixels, columns.stop - columns.start)
            probability = np.empty(pixels.size, np.float32)
            with timed(self._timings_ms, "decode"):
                at = (down + rows.start) * width + across + columns.start
                weights, kernels = self._resources.weights, self._resources.kernels
                kernels.decode_pixels(features, origin, self._grid, at, weights, probability)
            return probability

        own = slice(y.begin - rows.start, y.end - rows.start), slice(x.begin - columns.start, x.end - columns.start)
        tile = Tile(self._current[rows, columns].copy(), own, decode)
        self._resources.selection.decode(tile, None if limits is None else limits[rows, columns])
        return tile.found[own], tile.decoded

    def _backbone(self, tile: int, limits: Mask | None) -> tuple[Floats, ...]:
        """Compute both coarser scales of the whole picture, window by window; what no pixel needs stays zero."""
        height, width = self._size_hw
        halo = self._resources.halo
        whole: tuple[Floats, ...] = ()
        for y in spans(height, backbone_tile(height, tile), halo, STRIDE):
            for x in spans(width, backbone_tile(width, tile), halo, STRIDE):
                if self._resources.lazy and limits is not None and not self._needed(limits, y, x):
                    continue
                pixels = self._pixels(y.first, y.last, x.first, x.last)
                outputs = self._resources.backbone.run({"pixels": pixels})
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
        """Return whether a pixel within the limits reads a feature from a window of the backbone."""
        window = []
        for span, size, full in zip((y, x), self._size_hw, limits.shape, strict=True):
            reach = 3 * STRIDE  # a pixel reads its cell and the neighbours of convolution and interpolation
            window.append(slice(max(0, (span.begin - reach) * full // size), -(-(span.end + reach) * full // size)))
        return bool(limits[tuple(window)].any())

    def _fuse(self, rows: slice, columns: slice, scales: tuple[Floats, ...]) -> tuple[tuple[int, int], Floats]:
        """Return the origin and the values of the features that some rows and columns of pixels read."""
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
            features = self._resources.fusion.run(feeds)["features"]
        return (top, left), features

    def _pixels(self, top: int, bottom: int, left: int, right: int) -> Floats:
        """Return normalised picture and mask of a window at this stage's scale, float32 [1, 4, h, w]; 0 outside."""
        out = np.empty((1, 4, bottom - top, right - left), np.float32)
        taps = [
            resize_taps(full, size, *window)
            for full, size, window in zip(
                self._current.shape, self._size_hw, ((top, bottom), (left, right)), strict=True
            )
        ]
        sample = self._resources.kernels.sample_bilinear
        shown = [tap.through(places) for tap, places in zip(taps, self._places, strict=True)]
        sample(self._planes, *shown, self._resources.scale, self._resources.offset, out[0, :3])
        sample(self._current[None], *taps, np.full(1, 2, np.float32), np.full(1, -1, np.float32), out[0, 3:])
        return out

    def _window(self, scale: Floats, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[Floats, Taps, Taps]:
        """Return the window of a coarser scale [1, C, h, w] that some cells read, and how they read it."""
        taps, read = [], []
        for size, cells, window in zip(scale.shape[2:], self._cells_hw, (rows, columns), strict=True):
            places = resize_taps(size, cells, *window)
            inside = places.low != OUTSIDE
            first, last = int(places.low[inside].min()), int(places.high[inside].max())
            taps.append(places.through(np.arange(size) - first))
            read.append(slice(first, last + 1))
        return np.ascontiguousarray(scale[:, :, read[0], read[1]]), taps[0], taps[1]

    def _sampled(self, window: Floats, rows: Taps, columns: Taps) -> Floats:
        """Sample a coarser scale at some cells, 0 beyond the picture: [1, C, m + 2, n + 2]."""
        out = np.empty((1, window.shape[1], rows.low.size, columns.low.size), np.float32)
        one, zero = np.ones(out.shape[1], np.float32), np.zeros(out.shape[1], np.float32)
        self._resources.kernels.sample_bilinear(window[0], rows, columns, one, zero, out[0])
        return out

    def _convolved(self, window: Floats, rows: Taps, columns: Taps) -> Floats:
        """Return the coarsest scale's share of the fusion's convolution: [1, features, m, n]."""
        products = self._resources.coarse.run({"coarse": window})["taps"]
        out = np.empty((1, products.shape[1], rows.low.size - 2, columns.low.size - 2), np.float32)
        self._resources.kernels.add_shifted(products, rows, columns, out[0])
        return out
