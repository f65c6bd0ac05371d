"""The uncovered part of a bedside scene: the room, the bed and the child's body."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from maskrt.benchmarks.scenes.canvas import Canvas, Colour, Points, Stroke
from maskrt.benchmarks.scenes.props import BRIGHT, CLOTH_COLOURS, Body, Rng, pick
from maskrt.benchmarks.scenes.shapes import cloth, ellipse, noise, spline, to_size

SKIN: tuple[Colour, ...] = (
    (238, 200, 178), (226, 182, 152), (205, 158, 124), (168, 120, 88), (122, 84, 62), (92, 62, 48),
)  # fmt: skip
HAIR: tuple[Colour, ...] = (
    (38, 30, 28), (70, 48, 34), (112, 78, 48), (170, 132, 84), (140, 70, 40),
)  # fmt: skip
METAL: tuple[Colour, ...] = ((190, 194, 198), (120, 125, 130), (225, 226, 224), (60, 66, 74))


@dataclass(frozen=True)
class Frame:
    """Maps bed coordinates (x across, y head to foot, body length 1) to reference pixels."""

    centre: tuple[float, float]
    angle: float
    length: float
    squash: float  # vertical shortening of a bed seen from above at an angle

    def at(self, points: object) -> Points:
        """Return the reference pixels [N, 2] (or [2]) of bed points; nearer (lower) points grow a little."""
        p = np.asarray(points, np.float64) - (0, 0.5)
        c, s = np.cos(self.angle), np.sin(self.angle)
        x = (c * p[..., 0] - s * p[..., 1]) * self.length
        y = (s * p[..., 0] + c * p[..., 1]) * self.length * self.squash
        near = 1 + 0.16 * y / 540
        return np.stack([x * near, y * near], axis=-1) + self.centre


def box(x: float, y: float, w: float, h: float, lean: float = 0.0) -> Points:
    """Return the outline of a box with its top-left corner at (x, y), leaning sideways."""
    return np.array([[x + lean, y], [x + w + lean, y], [x + w, y + h], [x, y + h]], np.float64)


def draw_room(canvas: Canvas, rng: Rng) -> None:
    """Draw floor, wall and furniture over the whole frame."""
    base = pick(rng, ((150, 150, 146), (128, 140, 150), (165, 150, 128), (96, 104, 110)))
    tone = (0.12 * noise(rng, (90, 160), (7, 12)) + 0.05 * noise(rng, (90, 160), (40, 70)) + 1)[..., None] * np.asarray(
        base, np.float32
    )
    small = np.clip(tone, 0, 255).astype(np.uint8)
    canvas.rgb[:] = cv2.resize(small, canvas.size_wh, interpolation=cv2.INTER_CUBIC)
    canvas.instances[:] = canvas.add("room", False)
    horizon = rng.uniform(60, 260)
    if rng.random() < 0.7:
        wall = canvas.add("wall", False)
        outline = box(-4e3, -4e3, 1e4, 4e3 + horizon)
        outline[2:, 1] += rng.uniform(-40, 40, 2)
        canvas.paint(canvas.fill(outline), wall, pick(rng, CLOTH_COLOURS), reach=12)
    for _ in range(int(rng.integers(3, 7))):
        left = bool(rng.random() < 0.5)
        x = rng.uniform(-60, 330) if left else rng.uniform(1440, 1800)
        y = rng.uniform(-60, 760)
        wide, tall = rng.uniform(110, 340), rng.uniform(110, 360)
        kind = ("cabinet", "box", "chair", "monitor", "pole")[int(rng.integers(5))]
        ident = canvas.add(kind, False)
        if kind == "pole":
            line = np.array([[x, y - 400], [x + rng.uniform(-60, 60), y + 500]])
            stem = canvas.stroke((line, np.full(2, rng.uniform(5, 11))))
            canvas.paint(stem, ident, pick(rng, METAL), rim=0.4, reach=9)
            continue
        outline = box(x, y, wide, tall, rng.uniform(-30, 30))
        colour = pick(rng, ((40, 44, 50), (225, 226, 222))) if kind == "monitor" else pick(
            rng, BRIGHT + METAL + CLOTH_COLOURS, 25
        )  # fmt: skip
        canvas.paint(canvas.fill(outline), ident, colour, lift=250, reach=16, rim=0.35)
        centre = outline.mean(axis=0)
        inner = centre + 0.85 * (outline - centre)
        if kind == "monitor":
            canvas.detail(canvas.fill(inner), ident, (14, 18, 24))
            for k in range(4):
                t = np.linspace(0.12, 0.88, 60)
                beat = np.where(np.arange(60) % 15 == 4, -0.09, 0.0) + 0.01 * np.sin(t * 40)
                trace = np.stack([x + t * wide, y + (0.22 + 0.19 * k + beat) * tall], axis=1)
                colour = ((70, 220, 90), (230, 210, 70), (80, 190, 230), (225, 80, 80))[k]
                canvas.detail(canvas.stroke((trace, np.full(60, 1.6))), ident, colour)
        else:
            for k in range(int(rng.integers(1, 4))):
                canvas.detail(
                    canvas.fill(box(x + 12, y + (0.25 + 0.25 * k) * tall, wide - 24, 5)),
                    ident, (50, 50, 55), 0.6,
                )  # fmt: skip


def _rounded(points: Points, corner: float = 0.1) -> Points:
    p = np.asarray(points, np.float64)
    after, before = np.roll(p, -1, axis=0), np.roll(p, 1, axis=0)
    ring = np.stack([p + corner * (before - p), p, p + corner * (after - p)], axis=1)
    t = np.linspace(0, 1, 6)[:, None]
    arcs = [(1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c for a, b, c in ring]
    return np.concatenate(arcs)


def draw_bed(canvas: Canvas, rng: Rng, bed: Frame) -> None:
    """Draw a bed frame with rails, a wrinkled printed sheet and a pillow, around bed coordinates 0..1."""
    ident = canvas.add("bed_frame", False)
    half, top, foot = rng.uniform(0.4, 0.52), -0.2, 1.16
    rect = np.array([[-half, top], [half, top], [half, foot], [-half, foot]])
    metal = pick(rng, METAL)
    frame = canvas.fill(bed.at(_rounded(rect * (1.12, 1.05), 0.05)))
    canvas.paint(frame, ident, metal, lift=400, reach=26, shadow=0.7, rim=0.3)
    ident = canvas.add("sheet", False)
    base, second = pick(rng, CLOTH_COLOURS[:8]), pick(rng, CLOTH_COLOURS + BRIGHT)
    stamp = canvas.fill(bed.at(_rounded(rect)))
    style = ("plain", "plain", "plain", "dots", "stripes")[int(rng.integers(5))]
    tone = cloth(canvas, stamp, rng, base, second, style, 0.22)
    canvas.paint(stamp, ident, tone, lift=30, reach=8, rim=0.25)
    if style == "plain" and rng.random() < 0.5:
        # Printed rings, discs and bars resemble electrodes, tags and cables.
        for _ in range(int(rng.integers(8, 40))):
            at = bed.at((rng.uniform(-half, half) * 0.95, rng.uniform(top, foot) * 0.97))
            r, a = rng.uniform(6, 16), rng.uniform(0, 3)
            shape = (r, r) if rng.random() < 0.6 else (2.2 * r, 0.25 * r)
            canvas.detail(canvas.fill(ellipse(at, shape, a)), ident, second, 0.6)
    for x in (-half * 1.06, half * 1.06):
        if rng.random() < 0.75:
            rail = canvas.add("bed_rail", False)
            ends = rng.uniform(-0.1, 0.2), rng.uniform(0.5, 1.1)
            line = bed.at(np.array([[x, ends[0]], [x, ends[1]]]))
            rod = canvas.stroke((line, np.full(2, rng.uniform(6, 12))))
            canvas.paint(rod, rail, pick(rng, METAL), lift=60, reach=10, shadow=0.55, rim=0.4)
    pillow = canvas.add("pillow", False)
    x, w = rng.uniform(-0.06, 0.06), rng.uniform(0.24, 0.33)
    corners = np.array([[x - w, -0.14], [x, -0.12], [x + w, -0.14], [x + w * 0.96, 0.03],
                        [x + w, 0.2], [x, 0.18], [x - w, 0.2], [x - w * 0.96, 0.03]])  # fmt: skip
    corners += rng.uniform(-0.012, 0.012, corners.shape)
    stamp = canvas.fill(bed.at(spline(corners, 6, closed=True)))
    style = ("plain", "stripes", "dots")[int(rng.integers(3))]
    tone = cloth(canvas, stamp, rng, pick(rng, CLOTH_COLOURS[:8]), second, style, 0.16)
    canvas.paint(stamp, pillow, tone, lift=35, shadow=0.6, reach=12, round_=0.2, rim=0.2)


def draw_body(canvas: Canvas, rng: Rng, frame: Frame) -> Body:
    """Draw legs, arms, torso, head and hair, and return their places."""
    # One object: torso, limbs and head share their skin, and no line parts them.
    ident = canvas.add("body", False)
    skin = np.asarray(pick(rng, SKIN, 8))
    unit = frame.length * (1 + frame.squash) / 2
    legs, arms = [], []
    for s in (-1.0, 1.0):
        hip = np.array([0.055 * s, 0.55])
        a = s * rng.uniform(-0.05, 0.55)
        knee = hip + 0.21 * np.array([np.sin(a), np.cos(a)])
        a -= s * rng.uniform(-0.1, 0.8)
        ankle = knee + 0.19 * np.array([np.sin(a), np.cos(a)])
        toe = ankle + 0.065 * np.array([np.sin(a + s * 0.7), np.cos(a + s * 0.7)])
        line = frame.at(spline(np.stack([hip, knee, ankle, toe]), 10))
        legs.append((line, unit * np.interp(np.linspace(0, 3, 31), [0, 1, 1.8, 2.2, 3],
                                            [0.07, 0.05, 0.032, 0.034, 0.03])))  # fmt: skip
        _limb(canvas, rng, "leg", legs[-1], skin, ident)
    wide = rng.uniform(0.92, 1.1)
    half = np.array([[0.03, 0.185], [0.1, 0.2], [0.135, 0.25], [0.118, 0.36], [0.112, 0.46],
                     [0.122, 0.55], [0.09, 0.61], [0.02, 0.625]]) * (wide, 1)  # fmt: skip
    outline = frame.at(spline(np.concatenate([half, half[::-1] * (-1, 1)]), 5, closed=True))
    stamp = canvas.fill(outline)
    blotch = noise(rng, (24, 24), (6, 6))[..., None] * np.array([0.02, 0.05, 0.05]) + 1
    tone = to_size(np.asarray(blotch * skin, np.float32), stamp)
    canvas.paint(stamp, ident, tone, lift=95, reach=12, shadow=0.5, round_=0.3, rim=0.15)
    navel, nipple = tuple(0.6 * skin), tuple(0.72 * skin)
    canvas.detail(canvas.fill(ellipse(frame.at((0, 0.49)), (6, 5))), ident, navel, 0.8)
    for s in (-0.065, 0.065):
        canvas.detail(canvas.fill(ellipse(frame.at((s, 0.3)), (6, 5))), ident, nipple, 0.7)
    for s in (-1.0, 1.0):
        shoulder = np.array([0.12 * wide * s, 0.235])
        a = s * rng.uniform(0.1, 1.9)
        elbow = shoulder + 0.15 * np.array([np.sin(a), np.cos(a)])
        a += s * rng.uniform(-0.9, 1.0)
        wrist = elbow + 0.13 * np.array([np.sin(a), np.cos(a)])
        hand = wrist + 0.045 * np.array([np.sin(a), np.cos(a)])
        line = frame.at(spline(np.stack([shoulder, elbow, wrist, hand]), 10))
        arms.append((line, unit * np.interp(np.linspace(0, 3, 31), [0, 1, 1.9, 2.3, 3],
                                            [0.046, 0.036, 0.026, 0.034, 0.03])))  # fmt: skip
        _limb(canvas, rng, "arm", arms[-1], skin, ident)
    body = _head(canvas, rng, frame, unit, skin, ident)
    body.torso, body.chest = outline, frame.at((0, 0.32))
    body.arms, body.legs = arms, legs
    return body


def _limb(canvas: Canvas, rng: Rng, kind: str, limb: Stroke, skin: Points, ident: int) -> None:
    line, r = limb
    strokes = [limb]
    ahead = line[-1] - line[-3]
    heading = float(np.arctan2(ahead[1], ahead[0]))
    fan = np.linspace(-0.7, 0.7, 5) if kind == "arm" else np.linspace(-0.45, 0.45, 5)
    reach = 1.9 if kind == "arm" else 1.25
    for a in heading + fan * rng.uniform(0.8, 1.1):
        tip = line[-1] + reach * r[-1] * np.array([np.cos(a), np.sin(a)])
        strokes.append((np.stack([line[-1], tip]), np.full(2, 0.27 * r[-1])))
    stamp = canvas.stroke(*strokes)
    tone = (float(skin[0]), float(skin[1]), float(skin[2]))
    canvas.paint(stamp, ident, tone, lift=60, reach=9, shadow=0.5, round_=0.28, rim=0.18)


def _head(canvas: Canvas, rng: Rng, frame: Frame, unit: float, skin: Points, ident: int) -> Body:
    turn = rng.uniform(-0.35, 0.35)
    centre = frame.at((0.04 * turn, 0.082))
    down = frame.at((-0.12 * turn, 0.2)) - centre
    down = down / np.linalg.norm(down)
    axes = (unit * rng.uniform(0.094, 0.106), unit * rng.uniform(0.114, 0.128))
    body = Body(unit, centre, down, axes, centre, centre[None], centre)
    body.face = centre + body.side * turn * 0.7 * axes[0]
    tone = (float(skin[0]), float(skin[1]), float(skin[2]))
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    skull = body.on_head(np.cos(t) * (1 - 0.1 * np.sin(t)), np.sin(t))
    ears = [ellipse(body.on_head(np.array([s]), np.array([0.1]))[0], (0.15 * axes[0],) * 2)
            for s in (-1.0, 1.0)]  # fmt: skip
    stamp = canvas.fill(skull, *ears)
    canvas.paint(stamp, ident, tone, lift=110, reach=12, shadow=0.55, round_=0.3, rim=0.15)

    def spot(x: float, y: float, rx: float, ry: float, colour: Points, alpha: float) -> None:
        at = body.face + body.side * x * axes[0] + down * y * axes[1]
        angle = float(np.arctan2(body.side[1], body.side[0]))
        shape = canvas.fill(ellipse(at, (rx * axes[0], ry * axes[1]), angle))
        canvas.detail(shape, ident, tuple(colour), alpha)

    for s in (-0.38, 0.38):
        spot(s, 0.0, 0.2, 0.08, 0.8 * skin, 0.8)
        spot(s, 0.02, 0.15, 0.025, 0.25 * skin, 0.9)
        spot(s, -0.17, 0.2, 0.025, 0.45 * skin, 0.6)
        spot(s * 1.3, 0.3, 0.2, 0.13, np.minimum(skin * (1.06, 0.9, 0.88), 250), 0.5)
    spot(0.0, 0.22, 0.13, 0.1, np.minimum(1.08 * skin, 250), 0.8)
    spot(-0.06, 0.29, 0.035, 0.025, 0.4 * skin, 0.8)
    spot(0.06, 0.29, 0.035, 0.025, 0.4 * skin, 0.8)
    spot(0.0, 0.5, 0.22, 0.05, skin * (0.82, 0.55, 0.55), 0.9)
    if rng.random() < 0.85:
        hair, colour = canvas.add("hair", False), np.asarray(pick(rng, HAIR, 8))
        t = np.linspace(-np.pi, 0, 40)
        line = rng.uniform(-0.5, -0.3)
        back = np.linspace(0.98, -0.98, 24)
        fringe = line + 0.32 * back**2 + rng.uniform(-0.06, 0.06, 24)
        upper = body.on_head(1.05 * np.cos(t), 1.06 * np.sin(t) * np.abs(np.sin(t)) ** 0.15)
        stamp = canvas.fill(np.concatenate([upper, body.on_head(back + turn * 0.2, fringe)]))
        streak = 1 + 0.35 * noise(rng, (40, 60), (5, 45))[..., None]
        tone_ = to_size(np.asarray(streak * colour, np.float32), stamp)
        canvas.paint(stamp, hair, tone_, lift=5, shadow=0.3, reach=4, round_=0.3)
    return body
