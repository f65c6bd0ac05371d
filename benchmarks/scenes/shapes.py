"""Curves and textures shared by the procedural bedside scenes.

Lengths are reference pixels (a 1920x1080 frame); colours are RGB in 0..255.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from maskrt.benchmarks.scenes.canvas import F32, Canvas, Colour, Points, Stamp


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> F32:
    """Return smooth noise in about -1..1, float32 [h, w], from a grid of (rows, cols) cells."""
    low = rng.uniform(-1, 1, cells).astype(np.float32)
    size = (shape[1], shape[0])
    return np.asarray(cv2.resize(low, size, interpolation=cv2.INTER_CUBIC), np.float32)


def to_size(texture: F32, stamp: Stamp) -> F32:
    """Stretch a texture [h, w, ...] over a stamp."""
    h, w = stamp.mask.shape
    if h == 0 or w == 0:  # the object lies wholly outside the frame
        return np.zeros((h, w, *texture.shape[2:]), np.float32)
    return np.asarray(cv2.resize(texture, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)


def spline(points: Sequence[Sequence[float]] | Points, steps: int, closed: bool = False) -> Points:
    """Return the Catmull-Rom curve through the points, with `steps` samples for each span."""
    p = np.asarray(points, np.float64)
    n = len(p)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    spans = []
    for i in range(n if closed else n - 1):
        a, b, c, d = p[i : i + 4]
        bend = (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
        spans.append(0.5 * (2 * b + (c - a) * t + bend))
    if not closed:
        spans.append(p[-2:-1])
    return np.concatenate(spans)


def ellipse(
    centre: Points,
    axes: tuple[float, float],
    angle: float = 0.0,
    wobble: Points | None = None,
) -> Points:
    """Return a closed ellipse; wobble [K] scales the radius smoothly around it."""
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    r = np.ones(60)
    if wobble is not None:
        around = np.linspace(0, 1, len(wobble) + 1)
        r = 1 + np.interp(t / (2 * np.pi), around, np.append(wobble, wobble[0]))
    x, y = axes[0] * r * np.cos(t), axes[1] * r * np.sin(t)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * x - s * y, s * x + c * y], axis=1) + centre


def cloth(
    canvas: Canvas,
    stamp: Stamp,
    rng: np.random.Generator,
    base: Colour,
    second: Colour,
    style: str,
    wrinkle: float,
) -> F32:
    """Return the colours of a wrinkled fabric, float32 [h, w, 3]; style: plain, stripes, checks or dots."""
    u, v = canvas.grid(stamp, rng.uniform(0, np.pi))
    pitch, share = rng.uniform(22, 70), rng.uniform(0.25, 0.5)
    on = np.zeros_like(u)
    if style in ("stripes", "checks"):
        on = (np.mod(u / pitch, 1) < share).astype(np.float32)
    if style == "checks":
        on = 0.5 * on + 0.5 * (np.mod(v / pitch, 1) < share).astype(np.float32)
    if style == "dots":
        a, b = np.mod(u / pitch, 1) - 0.5, np.mod(v / pitch, 1) - 0.5
        on = (a * a + b * b < 0.25 * share * share).astype(np.float32)
    tone = np.asarray(base, np.float32) * (1 - on[..., None])
    tone += np.asarray(second, np.float32) * on[..., None]
    h, w = u.shape
    span = float(u.max() - u.min()) + 1
    k = max(int(span / 90), 3)
    fold = noise(rng, (h, w), (k, k)) + 0.6 * noise(rng, (h, w), (2 * k, max(k // 2, 2)))
    # Ridges (where the noise crosses zero) read as creases in the fabric.
    crease = np.exp(-((noise(rng, (h, w), (k, max(k // 2, 2))) / 0.09) ** 2))
    gain = 1 + wrinkle * (0.55 * fold - 0.5 * crease + 0.5 * np.roll(crease, 3, axis=1))
    return to_size(np.asarray(tone * gain[..., None], np.float32), stamp)
