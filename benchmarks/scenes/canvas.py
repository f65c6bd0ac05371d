"""Canvas and masks for the procedural bedside scenes.

Every coordinate is in reference pixels (a 1920x1080 frame); the canvas scales them to its own
size, so a drawing looks the same at any resolution. Colours are RGB in 0..255.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Points = NDArray[np.float64]
"""Float64 [N, 2] of (x, y) in reference pixels."""
Colour = tuple[float, float, float]
Stroke = tuple[Points, Points]
"""A centre line [N, 2] and its radius at every point [N], both in reference pixels."""

REFERENCE_WH = (1920, 1080)
_SHIFT = 4


@dataclass(frozen=True)
class Stamp:
    """A clipped mask: uint8 [h, w] of 0 or 255 whose top-left pixel is at (x, y)."""

    mask: U8
    x: int
    y: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Row and column slices of the canvas that the mask covers."""
        h, w = self.mask.shape
        return slice(self.y, self.y + h), slice(self.x, self.x + w)


@dataclass
class Canvas:
    """The picture under construction; all arrays are [H, W] or [H, W, 3]."""

    size_wh: tuple[int, int]
    light: tuple[float, float]  # unit vector in the image plane, pointing towards the lamp
    rgb: U8 = field(init=False)
    instances: NDArray[np.uint16] = field(init=False)
    lift_mm: NDArray[np.int16] = field(init=False)  # height above the bed plane
    objects: list[tuple[int, str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Allocate the frame."""
        w, h = self.size_wh
        self.rgb = np.zeros((h, w, 3), np.uint8)
        self.instances = np.zeros((h, w), np.uint16)
        self.lift_mm = np.full((h, w), -450, np.int16)
        self.scale = min(w / REFERENCE_WH[0], h / REFERENCE_WH[1])
        self.origin = (
            (w - REFERENCE_WH[0] * self.scale) / 2,
            (h - REFERENCE_WH[1] * self.scale) / 2,
        )

    def add(self, kind: str, occlusion: bool) -> int:
        """Register an object and return its id."""
        self.objects.append((len(self.objects), kind, occlusion))
        return len(self.objects) - 1

    def _window(self, points: Points, pad: float) -> tuple[Points, int, int, U8]:
        p = points * self.scale + np.asarray(self.origin)
        low = np.floor(p.min(axis=0) - pad).astype(int)
        high = np.ceil(p.max(axis=0) + pad).astype(int) + 1
        w, h = self.size_wh
        x0, x1 = int(np.clip(low[0], 0, w)), int(np.clip(high[0], 0, w))
        y0, y1 = int(np.clip(low[1], 0, h)), int(np.clip(high[1], 0, h))
        return p - (x0, y0), x0, y0, np.zeros((y1 - y0, x1 - x0), np.uint8)

    def fill(self, *outlines: Points) -> Stamp:
        """Return the mask of the union of closed polygons."""
        p, x0, y0, mask = self._window(np.concatenate(outlines), 2)
        start = 0
        for outline in outlines if mask.size else ():
            part = p[start : start + len(outline)]
            start += len(outline)
            cv2.fillPoly(mask, [_fixed(part)], 255, shift=_SHIFT)
        return Stamp(mask, x0, y0)

    def stroke(self, *strokes: Stroke, flat: bool = False) -> Stamp:
        """Return the mask of the union of thick lines, at least one pixel wide; `flat` cuts the ends."""
        widest = max(float(r.max()) for _, r in strokes) * self.scale
        p, x0, y0, mask = self._window(np.concatenate([s[0] for s in strokes]), widest + 2)
        start = 0
        for line, radius in strokes if mask.size else ():
            part = p[start : start + len(line)]
            start += len(line)
            # OpenCV also paints a polygon's boundary, half a pixel outside the outline.
            r = np.maximum(radius * self.scale - 0.5, 0.01)
            side = normals(part) * r[:, None]
            left, right = _fixed(part + side), _fixed(part - side)
            for i in range(len(part) - 1):
                quad = np.stack([left[i], left[i + 1], right[i + 1], right[i]])
                cv2.fillConvexPoly(mask, quad, 255, shift=_SHIFT)
            centre, fixed_r = _fixed(part), np.round(r * 2**_SHIFT).astype(int)
            for i in range(1, len(part) - 1) if flat else range(len(part)):
                if r[i] > 1 and not flat:
                    xy = (int(centre[i, 0]), int(centre[i, 1]))
                    cv2.circle(mask, xy, int(fixed_r[i]), 255, -1, shift=_SHIFT)
        return Stamp(mask, x0, y0)

    def paint(
        self,
        stamp: Stamp,
        ident: int,
        colour: Colour | F32,
        *,
        alpha: float = 1.0,
        lift: float = 3.0,
        shadow: float = 0.45,
        reach: float = 5.0,
        round_: float = 0.0,
        rim: float = 0.0,
    ) -> None:
        """Draw an object and label its pixels.

        colour is one RGB or float32 [h, w, 3] over the stamp; lift is the height gained in mm;
        shadow the darkness (0..1) cast `reach` reference pixels away from the lamp; round_ the
        strength of the pseudo-relief; rim the darkness of the outline.
        """
        if not stamp.mask.any():
            return
        if shadow:
            self._cast(stamp, shadow, reach)
        gain = self._gain(stamp, round_, rim)
        rows, cols = stamp.window
        view, mask = self.rgb[rows, cols], stamp.mask
        tone = np.asarray(colour, np.float32)
        if cv2.countNonZero(mask) > 0.25 * mask.size:
            if tone.ndim == 1:
                tone = np.full((*mask.shape, 3), tone, np.float32)
            if gain is not None:
                tone = cv2.multiply(tone, cv2.merge([gain, gain, gain]))
            if alpha < 1:
                tone = cv2.addWeighted(tone, alpha, view.astype(np.float32), 1 - alpha, 0)
            cv2.copyTo(cv2.convertScaleAbs(np.maximum(tone, 0)), mask, view)
            cv2.copyTo(np.full(mask.shape, ident, np.uint16), mask, self.instances[rows, cols])
            height = self.lift_mm[rows, cols]
            cv2.add(height, np.full(mask.shape, lift, np.int16), height, mask)
            return
        at = np.nonzero(mask)
        tone = tone[None] if tone.ndim == 1 else tone[at]
        if gain is not None:
            tone = tone * gain[at][:, None]
        if alpha < 1:
            tone = alpha * tone + (1 - alpha) * view[at]
        view[at] = np.clip(tone, 0, 255).astype(np.uint8)
        self.instances[rows, cols][at] = ident
        self.lift_mm[rows, cols][at] += np.int16(lift)

    def _gain(self, stamp: Stamp, round_: float, rim: float) -> F32 | None:
        gain: F32 | None = None
        if round_:
            gain = np.asarray(1 + round_ * relief(stamp.mask, self.light), np.float32)
        if rim:
            gain = np.ones(stamp.mask.shape, np.float32) if gain is None else gain
            k = 2 * max(1, round(1.2 * self.scale)) + 1
            core = cv2.erode(stamp.mask, np.ones((k, k), np.uint8), borderValue=255)
            gain[core == 0] *= 1 - rim
        return gain

    def detail(self, stamp: Stamp, ident: int, colour: Colour, alpha: float = 1.0) -> None:
        """Tint the part of the stamp that already shows `ident`, labels unchanged."""
        rows, cols = stamp.window
        at = np.nonzero(stamp.mask)
        own = self.instances[rows, cols][at] == ident
        at = at[0][own], at[1][own]
        view = self.rgb[rows, cols]
        tone = alpha * np.asarray(colour, np.float32) + np.float32(1 - alpha) * view[at]
        view[at] = np.clip(tone, 0, 255).astype(np.uint8)

    def _cast(self, stamp: Stamp, strength: float, reach: float) -> None:
        r = max(reach * self.scale, 0.6)
        pad = int(3 * r) + 2
        h, w = stamp.mask.shape
        x0, y0 = max(stamp.x - pad, 0), max(stamp.y - pad, 0)
        x1 = min(stamp.x + w + pad, self.size_wh[0])
        y1 = min(stamp.y + h + pad, self.size_wh[1])
        # A wide shadow is smooth, so it is blurred small and enlarged.
        f = max(r / 3, 1.0)
        move = np.array(
            [
                [1 / f, 0, (stamp.x - x0 - self.light[0] * r) / f],
                [0, 1 / f, (stamp.y - y0 - self.light[1] * r) / f],
            ]
        )
        low = max(int((x1 - x0) / f), 1), max(int((y1 - y0) / f), 1)
        soft = cv2.GaussianBlur(cv2.warpAffine(stamp.mask, move, low), (0, 0), 0.75 * r / f)
        if f > 1:
            soft = cv2.resize(soft, (x1 - x0, y1 - y0))
        soft[stamp.y - y0 : stamp.y - y0 + h, stamp.x - x0 : stamp.x - x0 + w][stamp.mask > 0] = 0
        at = np.nonzero(soft > 6)
        view = self.rgb[y0:y1, x0:x1]
        factor = 1 - soft[at].astype(np.float32) * np.float32(strength / 255)
        view[at] = (view[at] * factor[:, None]).astype(np.uint8)

    def grid(self, stamp: Stamp, angle: float, budget: int = 120_000) -> tuple[F32, F32]:
        """Return rotated texture coordinates over a stamp, in reference pixels, of at most `budget` cells."""
        h, w = stamp.mask.shape
        shrink = max(1.0, (h * w / budget) ** 0.5)
        ys, xs = np.mgrid[0 : max(int(h / shrink), 1), 0 : max(int(w / shrink), 1)]
        x = (xs * shrink + stamp.x) / self.scale
        y = (ys * shrink + stamp.y) / self.scale
        c, s = np.cos(angle), np.sin(angle)
        return (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.asarray(np.round(points * 2**_SHIFT), np.int32)


def normals(line: Points) -> Points:
    """Return the unit normals [N, 2] of an open line."""
    d = np.gradient(line, axis=0)
    n = np.stack([-d[:, 1], d[:, 0]], axis=1)
    length: Points = np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9)
    return n / length


def relief(mask: U8, light: tuple[float, float]) -> F32:
    """Return the pseudo-relief of a mask: about -1 away from the lamp to +1 towards it, float32 [h, w]."""
    h, w = mask.shape
    shrink = max(h, w) / 96
    lw, lh = max(int(w / shrink), 2), max(int(h / shrink), 2)
    low = cv2.resize(mask, (lw, lh), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    low = cv2.copyMakeBorder(low, 8, 8, 8, 8, cv2.BORDER_CONSTANT, value=0)
    thick = float(cv2.distanceTransform((low > 0.5).astype(np.uint8), cv2.DIST_L2, 3).max())
    low = cv2.GaussianBlur(low, (0, 0), float(np.clip(thick * 0.6, 0.8, 6)))
    gx = cv2.Sobel(low, cv2.CV_32F, 1, 0)
    gy = cv2.Sobel(low, cv2.CV_32F, 0, 1)
    slope = -(gx * light[0] + gy * light[1])
    slope = (slope / max(float(np.abs(slope).max()), 1e-6))[8:-8, 8:-8]
    return np.asarray(cv2.resize(slope, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)
