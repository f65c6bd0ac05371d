"""The things that cover the child: cables, tubes, dressings, clothes and toys.

Each function draws one object on a canvas; sizes are reference pixels (1920x1080).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from maskrt.benchmarks.scenes.canvas import F32, Canvas, Colour, Points, Stamp, Stroke, normals
from maskrt.benchmarks.scenes.shapes import cloth, ellipse, noise, spline, to_size

Rng = np.random.Generator

CABLE_COLOURS: tuple[Colour, ...] = (
    (225, 225, 222), (150, 152, 155), (42, 42, 46), (50, 130, 70), (185, 45, 45), (45, 75, 165),
    (215, 185, 60),
)  # fmt: skip
CLOTH_COLOURS: tuple[Colour, ...] = (
    (226, 226, 222), (214, 208, 194), (168, 192, 216), (160, 200, 180), (222, 184, 190),
    (100, 160, 165), (160, 164, 170), (222, 210, 150), (90, 110, 165), (190, 120, 110),
)  # fmt: skip
BRIGHT: tuple[Colour, ...] = (
    (215, 60, 55), (240, 180, 50), (60, 145, 215), (90, 180, 80), (230, 120, 170), (150, 95, 55),
    (240, 235, 225), (130, 85, 175),
)  # fmt: skip


@dataclass
class Body:
    """Where the drawn child is, for the props that sit on it."""

    unit: float  # body length in reference pixels
    head: Points  # [2] centre
    down: Points  # [2] unit vector from the crown to the chin
    head_axes: tuple[float, float]  # half width and half height
    face: Points  # [2] centre of the face
    torso: Points  # outline
    chest: Points  # [2]
    arms: list[Stroke] = field(default_factory=list)
    legs: list[Stroke] = field(default_factory=list)

    @property
    def side(self) -> Points:
        """Unit vector across the face [2]."""
        return np.array([-self.down[1], self.down[0]])

    def on_head(self, x: Points, y: Points) -> Points:
        """Return the outline [N, 2] of head coordinates (-1..1 across, -1..1 crown to chin)."""
        across = np.outer(x * self.head_axes[0], self.side)
        return self.head + across + np.outer(y * self.head_axes[1], self.down)


def pick(rng: Rng, colours: tuple[Colour, ...], spread: float = 14) -> Colour:
    """Choose one of the colours, and vary it by up to `spread` in every channel."""
    c = np.asarray(colours[int(rng.integers(len(colours)))]) + rng.uniform(-spread, spread, 3)
    r, g, b = np.clip(c, 8, 250)
    return float(r), float(g), float(b)


def section(limb: Stroke, start: float, stop: float, grow: float) -> Stroke:
    """Return the part of a limb between two fractions of its length, `grow` times as thick."""
    line, radius = limb
    at = np.linspace(start, stop, 14) * (len(line) - 1)
    index = np.arange(len(line))
    part = np.stack([np.interp(at, index, line[:, k]) for k in (0, 1)], axis=1)
    # Beyond the end of the limb the last direction goes on, to cover fingers and toes.
    beyond = np.maximum(at - index[-1], 0)[:, None]
    part = part + beyond * (line[-1] - line[-2])
    return part, np.interp(at, index, radius) * grow


def _weave(canvas: Canvas, stamp: Stamp, rng: Rng, base: Colour, angle: float) -> F32:
    u, v = canvas.grid(stamp, angle)
    wrap = 0.10 * np.abs(np.mod(u / rng.uniform(14, 22) + v / 90, 1) - 0.5) * 2
    grain = 0.05 * np.sin(u * 1.6) * np.sin(v * 1.6) + 0.06 * noise(rng, u.shape, (6, 6))
    tone = np.asarray(base, np.float32) * (0.93 + wrap + grain)[..., None]
    return to_size(np.asarray(tone, np.float32), stamp)


def cable(canvas: Canvas, rng: Rng, line: Points) -> None:
    """Draw a thin lead, 3 to 6 reference pixels wide."""
    half = rng.uniform(1.5, 3.0)
    colour = pick(rng, CABLE_COLOURS)
    _hose(canvas, "cable", line, half, colour, 1.0, 0.45)


def tube(canvas: Canvas, rng: Rng, line: Points) -> None:
    """Draw a plastic tube, 8 to 14 reference pixels wide, more or less translucent."""
    colour = pick(rng, ((205, 222, 226), (170, 205, 200), (200, 205, 235), (225, 215, 190)))
    _hose(canvas, "tube", line, rng.uniform(4, 7), colour, rng.uniform(0.5, 0.85), 0.75)


def _hose(canvas: Canvas, kind: str, line: Points, half: float, colour: Colour, alpha: float, shine: float) -> None:
    ident = canvas.add(kind, True)
    width = np.full(len(line), half)
    stamp = canvas.stroke((line, width))
    canvas.paint(stamp, ident, colour, alpha=alpha, lift=2 * half, shadow=0.55, reach=half + 1.5)
    n = normals(line)
    lit = np.sign(n @ np.asarray(canvas.light))[:, None] * n * half
    dark, bright = [0.55 * c for c in colour], [min(255.0, c + 70) for c in colour]
    shade = canvas.stroke((line - 0.75 * lit, width * 0.3))
    canvas.detail(shade, ident, (dark[0], dark[1], dark[2]), 0.6)
    glint = canvas.stroke((line + 0.35 * lit, width * 0.25))
    canvas.detail(glint, ident, (bright[0], bright[1], bright[2]), shine)


def patch(canvas: Canvas, rng: Rng, at: Points) -> None:
    """Draw an ECG electrode: an adhesive disc, 16 to 28 reference pixels across, with a metal button."""
    ident = canvas.add("patch", True)
    r = rng.uniform(9, 14)
    base = pick(rng, ((235, 235, 230), (225, 205, 170), (120, 150, 200), (190, 215, 225)))
    disc = canvas.fill(ellipse(at, (r, r * rng.uniform(0.8, 1)), rng.uniform(0, 3)))
    canvas.paint(disc, ident, base, lift=2, shadow=0.6, reach=3, rim=0.3)
    canvas.detail(canvas.fill(ellipse(at, (0.42 * r, 0.4 * r))), ident, (95, 95, 100))
    spot = at + np.asarray(canvas.light) * 0.12 * r
    canvas.detail(canvas.fill(ellipse(spot, (0.2 * r, 0.2 * r))), ident, (225, 225, 230))


def bandage(canvas: Canvas, rng: Rng, body: Body, limb: Stroke | None) -> None:
    """Draw a white or brown wrapped strip, around a limb or (limb None) the forehead."""
    ident = canvas.add("bandage", True)
    base = pick(rng, ((232, 230, 224), (176, 134, 96), (205, 172, 136)))
    angle = float(np.arctan2(body.down[1], body.down[0]))
    if limb is None:
        x = np.linspace(-1.04, 1.04, 20)
        top = rng.uniform(-0.62, -0.5)
        edge = 1.06 * np.sqrt(np.clip(1 - (x * 0.94) ** 2, 0, 1))
        upper = body.on_head(x, np.maximum(top - 0.08 * edge, -edge))
        stamp = canvas.fill(np.concatenate([upper, body.on_head(x, top + 0.34 + 0 * x)[::-1]]))
    else:
        start = rng.uniform(0.15, 0.5)
        line, r = section(limb, start, start + rng.uniform(0.14, 0.35), 1.14)
        d = line[-1] - line[0]
        angle = float(np.arctan2(d[1], d[0])) + rng.uniform(-0.4, 0.4)
        stamp = canvas.stroke((line, r), flat=True)
    weave = _weave(canvas, stamp, rng, base, angle)
    canvas.paint(stamp, ident, weave, lift=6, shadow=0.6, reach=4, round_=0.3, rim=0.3)


def wrap_end(canvas: Canvas, rng: Rng, limb: Stroke, kind: str) -> None:
    """Draw a sock or glove over the end of a limb, with a cuff."""
    ident = canvas.add(kind, True)
    base, second = pick(rng, CLOTH_COLOURS + BRIGHT), pick(rng, BRIGHT)
    cut = rng.uniform(0.72, 0.8) if kind == "sock" else rng.uniform(0.78, 0.84)
    line, r = section(limb, cut, 1.08 if kind == "sock" else 1.2, 1.25)
    stamp = canvas.stroke((line, r))
    style = ("plain", "stripes")[int(rng.integers(2))]
    tone = cloth(canvas, stamp, rng, base, second, style, 0.12)
    canvas.paint(stamp, ident, tone, lift=8, shadow=0.55, reach=6, round_=0.35, rim=0.3)
    cuff = canvas.stroke((line[1:3], r[1:3] * 1.1), flat=True)
    canvas.detail(cuff, ident, second, 0.6)


def tag(canvas: Canvas, rng: Rng, limb: Stroke) -> None:
    """Draw an identity band around a wrist or an ankle, with printed lines."""
    ident = canvas.add("tag", True)
    at = rng.uniform(0.72, 0.78)
    line, r = section(limb, at, at + 0.055, 1.2)
    base = pick(rng, ((238, 238, 235), (240, 225, 120), (235, 170, 190), (150, 190, 230)))
    stamp = canvas.stroke((line, r), flat=True)
    canvas.paint(stamp, ident, base, lift=3, shadow=0.6, reach=3, rim=0.3, round_=0.2)
    side = normals(line)
    for k in (3, 7, 10):
        print_ = np.stack([line[k] - side[k] * r[k] * 0.6, line[k] + side[k] * r[k] * 0.5])
        canvas.detail(canvas.stroke((print_, np.full(2, 1.0))), ident, (50, 50, 60), 0.85)


def oxygen_mask(canvas: Canvas, rng: Rng, body: Body) -> None:
    """Draw a translucent cup over nose and mouth, held by a strap."""
    ident = canvas.add("oxygen_mask", True)
    w, h = body.head_axes
    strap_colour = pick(rng, ((70, 120, 90), (220, 220, 215), (70, 95, 150)))
    tilt = rng.uniform(-0.1, 0.1)
    for s in (-1.0, 1.0):
        x, y = np.array([0.3 * s, 0.7 * s, 1.0 * s]), np.array([0.35, 0.15, -0.05 + tilt])
        strap = canvas.stroke((body.on_head(x, y), np.full(3, 5.0)))
        canvas.paint(strap, ident, strap_colour, lift=3, shadow=0.5, reach=3, rim=0.25)
    centre = body.face + body.down * 0.34 * h
    shape = np.array([[0, -0.42], [0.3, -0.1], [0.46, 0.3], [0.3, 0.52], [0, 0.58], [-0.3, 0.52],
                      [-0.46, 0.3], [-0.3, -0.1]])  # fmt: skip
    outline = np.outer(shape[:, 0] * w * 1.1, body.side) + np.outer(shape[:, 1] * h, body.down)
    curve = spline(outline, 8, closed=True)
    stamp = canvas.fill(centre + curve)
    tint = pick(rng, ((205, 225, 220), (190, 225, 205), (215, 222, 232)))
    alpha = rng.uniform(0.5, 0.75)
    canvas.paint(stamp, ident, tint, alpha=alpha, lift=30, round_=0.3, rim=0.4, reach=5)
    canvas.detail(canvas.fill(centre + 0.4 * curve), ident, (235, 245, 240), 0.5)
    canvas.detail(canvas.fill(centre + body.down * 0.1 * h + 0.2 * curve), ident, (90, 130, 110))


def pacifier(canvas: Canvas, rng: Rng, body: Body) -> None:
    """Draw shield, knob and ring over the mouth."""
    ident = canvas.add("pacifier", True)
    w, h = body.head_axes
    at = body.face + body.down * 0.5 * h
    base, second = pick(rng, BRIGHT), pick(rng, BRIGHT)
    angle = float(np.arctan2(body.side[1], body.side[0]))
    shield = canvas.fill(ellipse(at, (0.36 * w, 0.2 * h), angle))
    canvas.paint(shield, ident, base, lift=12, rim=0.3, round_=0.3, reach=4)
    ring = canvas.fill(ellipse(at + body.down * 0.08 * h, (0.16 * w, 0.14 * h), angle))
    canvas.paint(ring, ident, second, lift=10, rim=0.35, round_=0.35, reach=3)


def hat(canvas: Canvas, rng: Rng, body: Body) -> None:
    """Draw a knitted cap over the crown, with a folded brim."""
    ident = canvas.add("hat", True)
    base, second = pick(rng, CLOTH_COLOURS + BRIGHT), pick(rng, CLOTH_COLOURS)
    brim = rng.uniform(-0.4, -0.2)
    t = np.linspace(-np.pi, 0, 30)
    x, y = 1.1 * np.cos(t), brim + (1.2 + brim) * np.sin(t)
    stamp = canvas.fill(body.on_head(x, y))
    style = ("plain", "stripes", "dots")[int(rng.integers(3))]
    tone = cloth(canvas, stamp, rng, base, second, style, 0.15)
    canvas.paint(stamp, ident, tone, lift=10, round_=0.35, rim=0.25, reach=7)
    x = np.linspace(-1.14, 1.14, 12)
    low, high = np.full(12, brim + 0.06), np.full(12, brim - 0.16)
    band = canvas.fill(np.concatenate([body.on_head(x, high), body.on_head(x, low)[::-1]]))
    canvas.paint(band, ident, second, lift=4, rim=0.25, round_=0.2, reach=4)


def diaper(canvas: Canvas, rng: Rng, outline: Points) -> None:
    """Draw a padded brief over the hips with two tapes. The outline runs waist left, right, crotch."""
    ident = canvas.add("diaper", True)
    base = pick(rng, ((236, 236, 234), (225, 232, 238), (235, 225, 205)), 8)
    stamp = canvas.fill(spline(outline, 6, closed=True))
    second = pick(rng, BRIGHT, 30)
    style = ("plain", "plain", "dots")[int(rng.integers(3))]
    tone = cloth(canvas, stamp, rng, base, second, style, 0.16)
    canvas.paint(stamp, ident, tone, lift=18, round_=0.22, rim=0.3, reach=6)
    middle = outline.mean(axis=0)
    for corner in outline[:2]:
        tape = np.stack([0.85 * corner + 0.15 * middle, 0.5 * corner + 0.5 * middle])
        canvas.detail(canvas.stroke((tape, np.full(2, 7.0)), flat=True), ident, second, 0.7)


def toy(canvas: Canvas, rng: Rng, at: Points, unit: float) -> None:
    """Draw a plush animal or striped ball as one object of several parts."""
    ident = canvas.add("toy", True)
    base, second = pick(rng, BRIGHT, 25), pick(rng, BRIGHT, 25)
    r = unit * rng.uniform(0.05, 0.085)
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(angle), np.sin(angle)

    def part(x: float, y: float, size: float, colour: Colour, label: bool = True) -> None:
        centre = at + r * np.array([c * x - s * y, s * x + c * y])
        outline = ellipse(centre, (size * r, size * r * 0.92), angle, rng.uniform(-0.04, 0.04, 14))
        if label:
            stamp = canvas.fill(outline)
            tone = cloth(canvas, stamp, rng, colour, colour, "plain", 0.12)
            canvas.paint(stamp, ident, tone, lift=25, round_=0.35, rim=0.3, reach=6)
        else:
            canvas.detail(canvas.fill(outline), ident, colour)

    if rng.random() < 0.3:
        part(0, 0, 1.0, base)
        part(0.1, 0.1, 0.6, second, False)
        part(0.15, 0.1, 0.3, base, False)
        return
    for x in (-0.75, 0.75):
        part(x, 1.9, 0.42, second)
        part(x * 1.2, 0.6, 0.38, base)
    part(0, 1.15, 0.95, base)
    part(0, 1.2, 0.5, second, False)
    for x in (-0.6, 0.6):
        part(x, -0.65, 0.34, second)
    part(0, 0, 0.8, base)
    part(0, 0.3, 0.34, second, False)
    for x in (-0.3, 0.0, 0.3):
        part(x, -0.1 if x else 0.25, 0.1, (25, 22, 22), False)


def blanket(canvas: Canvas, rng: Rng, outline: Points, fold: Points) -> None:
    """Draw a large cloth with a wavy outline and a turned-back strip [4, 2] along one edge."""
    ident = canvas.add("blanket", True)
    base, second = pick(rng, CLOTH_COLOURS), pick(rng, CLOTH_COLOURS + BRIGHT)
    stamp = canvas.fill(outline)
    style = ("plain", "stripes", "checks", "dots")[int(rng.integers(4))]
    tone = cloth(canvas, stamp, rng, base, second, style, 0.3)
    canvas.paint(stamp, ident, tone, lift=20, shadow=0.65, reach=10, round_=0.12, rim=0.25)
    strip = canvas.fill(fold)
    tone = cloth(canvas, strip, rng, second, base, "plain", 0.2)
    canvas.paint(strip, ident, tone, lift=8, shadow=0.5, reach=6, round_=0.2, rim=0.2)
