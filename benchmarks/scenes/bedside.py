"""Procedural bedside scenes with exact ground truth.

Pictures of patients cannot be shared, so training and measuring need a stand-in: a child in a
bed seen from above, partly covered by the things an intensive-care unit puts there. Every pixel
carries the id of the topmost object drawn on it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.scenes import props
from maskrt.benchmarks.scenes.canvas import U8, Canvas, Points
from maskrt.benchmarks.scenes.room import Frame, draw_bed, draw_body, draw_room
from maskrt.benchmarks.scenes.shapes import noise, spline

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Instance:
    """One drawn object; id is its value in the label image."""

    id: int
    kind: str
    occlusion: bool


@dataclass(frozen=True)
class Scene:
    """A picture and its truth.

    rgb is uint8 [H, W, 3]; instances uint16 [H, W] holds the visible object's id at every pixel;
    objects lists exactly the ids that occur; roi_xywh is a box in pixels around the body;
    depth_mm is uint16 [H, W], 0 where the sensor has no reading.
    """

    rgb: U8
    instances: NDArray[np.uint16]
    objects: tuple[Instance, ...]
    roi_xywh: Box
    depth_mm: NDArray[np.uint16]

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Bool [H, W]: the visible object is an occlusion."""
        table = np.zeros(max(o.id for o in self.objects) + 1, np.bool_)
        table[[o.id for o in self.objects if o.occlusion]] = True
        return np.asarray(table[self.instances], np.bool_)


def draw_scene(seed: int, size_wh: tuple[int, int] = (1920, 1080)) -> Scene:
    """Draw the scene of a seed at a size (width, height) in pixels."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi)
    canvas = Canvas(size_wh, (float(np.cos(angle)), float(np.sin(angle))))
    # Beds stand along or across the view, either way round.
    heading = int(rng.integers(4)) * np.pi / 2 + rng.normal(0, 0.14)
    upright = abs(np.cos(heading)) > 0.7
    length = rng.uniform(760, 900) if upright else rng.uniform(860, 1080)
    centre = (960 + rng.uniform(-140, 140), 545 + rng.uniform(-40, 40))
    bed = Frame(centre, heading, length * 1.02, rng.uniform(0.82, 0.95))
    lying = heading + rng.normal(0, 0.08)
    shift = bed.at((rng.uniform(-0.06, 0.06), 0.5 + rng.uniform(-0.02, 0.03)))
    scale = rng.uniform(0.84, 1.04)
    frame = Frame((float(shift[0]), float(shift[1])), lying, length * scale, bed.squash)
    draw_room(canvas, rng)
    draw_bed(canvas, rng, bed)
    body = draw_body(canvas, rng, frame)
    _cover(canvas, rng, frame, body)
    _lead(canvas, rng, frame, body)
    counts = np.bincount(canvas.instances.ravel(), minlength=len(canvas.objects))
    objects = tuple(Instance(*o) for o in canvas.objects if counts[o[0]])
    depth = _depth(canvas, np.random.default_rng((seed, 1)))
    rgb = _expose(canvas, np.random.default_rng((seed, 2)))
    return Scene(rgb, canvas.instances, objects, _roi(canvas, body, rng), depth)


def _cover(canvas: Canvas, rng: props.Rng, frame: Frame, body: props.Body) -> None:
    """Draw clothes, dressings and toys."""
    limbs = [*body.legs, *body.arms]
    if rng.random() < 0.65:
        waist = np.array([[-0.125, 0.49], [0.125, 0.49], [0.13, 0.56], [0.1, 0.625], [0.03, 0.655],
                          [-0.03, 0.655], [-0.1, 0.625], [-0.13, 0.56]])  # fmt: skip
        props.diaper(canvas, rng, frame.at(waist + rng.uniform(-0.006, 0.006, waist.shape)))
    for limb in limbs:
        if rng.random() < 0.35:
            props.bandage(canvas, rng, body, limb)
    for limb in body.legs:
        if rng.random() < 0.3:
            props.wrap_end(canvas, rng, limb, "sock")
    for limb in body.arms:
        if rng.random() < 0.2:
            props.wrap_end(canvas, rng, limb, "glove")
    if rng.random() < 0.6:
        props.tag(canvas, rng, limbs[int(rng.integers(4))])
    if rng.random() < 0.35:
        props.hat(canvas, rng, body)
    elif rng.random() < 0.35:
        props.bandage(canvas, rng, body, None)
    for _ in range(int(rng.choice(4, p=[0.25, 0.4, 0.25, 0.1]))):
        side = -1 if rng.random() < 0.5 else 1
        at = frame.at((side * rng.uniform(0.27, 0.42), rng.uniform(-0.02, 1.0)))
        props.toy(canvas, rng, at, body.unit)


def _blanket(canvas: Canvas, rng: props.Rng, frame: Frame) -> None:
    if rng.random() < 0.6:  # over the legs
        top, bottom = rng.uniform(0.52, 0.78), rng.uniform(1.02, 1.14)
        left, right = -rng.uniform(0.12, 0.42), rng.uniform(0.12, 0.42)
    else:  # along one side
        top, bottom = rng.uniform(0.15, 0.5), rng.uniform(0.8, 1.1)
        left, right = rng.uniform(0.02, 0.14), rng.uniform(0.3, 0.46)
        if rng.random() < 0.5:
            left, right = -right, -left
    middle = (left + right) / 2
    ring = np.array([[left, top], [middle, top], [right, top], [right, (top + bottom) / 2],
                     [right, bottom], [middle, bottom], [left, bottom],
                     [left, (top + bottom) / 2]])  # fmt: skip
    ring += rng.uniform(-0.035, 0.035, ring.shape)
    a, b = ring[0], ring[2]
    deep = np.array([0, rng.uniform(0.05, 0.09)])
    crest = spline([a - (0.005, 0.01), ring[1] - (0, 0.01), b - (-0.005, 0.01)], 8)
    fold = np.concatenate([crest, (crest + deep + rng.uniform(-0.006, 0.006, crest.shape))[::-1]])
    props.blanket(canvas, rng, frame.at(spline(ring, 8, closed=True)), frame.at(fold))


def _route(rng: props.Rng, start: Points, exit_: Points, sway: float) -> Points:
    """Return a smooth line that wanders from an anchor to beyond the frame."""
    span = exit_ - start
    length = float(np.linalg.norm(span))
    across = np.array([-span[1], span[0]]) / max(length, 1e-6)
    count = int(rng.integers(2, 5))
    # Evenly spread bends, since two close together would kink the line.
    at = (np.arange(count) + rng.uniform(0.3, 0.9, count)) / (count + 0.6)
    bend = [start + span * t + across * rng.normal(0, sway) * length for t in at]
    return spline(np.stack([start, *bend, exit_]), 22)


def _lead(canvas: Canvas, rng: props.Rng, frame: Frame, body: props.Body) -> None:
    """Draw blanket, electrodes, mask or pacifier, tubes and cables, in that order or with the blanket last."""
    early = rng.random() < 0.7
    covered = rng.random() < 0.6
    if covered and early:
        _blanket(canvas, rng, frame)
    wrists = [limb[0][-12] for limb in body.arms] + [limb[0][-12] for limb in body.legs]
    spots = rng.uniform((-0.09, 0.23), (0.09, 0.46), (int(rng.integers(2, 6)), 2))
    chest = [frame.at(p) for p in spots]
    mouth = body.face + body.down * 0.4 * body.head_axes[1]
    style = rng.random()
    # One side of the bed carries the monitor, so most leads leave together.
    gather = rng.uniform(0, 2 * np.pi)

    def away(spread: float) -> Points:
        a = gather + rng.normal(0, spread)
        return np.array([960 + 1350 * np.cos(a), 540 + 900 * np.sin(a)])

    for _ in range(int(rng.integers(0, 3))):
        ends = [*wrists, body.chest]
        props.tube(canvas, rng, _route(rng, ends[int(rng.integers(5))], away(0.5), 0.14))
    for at in chest:
        if rng.random() < 0.85:
            props.cable(canvas, rng, _route(rng, at, away(0.25), 0.12))
        props.patch(canvas, rng, at)
    for _ in range(int(rng.integers(1, 5))):
        end = wrists[int(rng.integers(4))] if rng.random() < 0.7 else away(1.5)
        props.cable(canvas, rng, _route(rng, end, away(0.6), 0.16))
    if style < 0.7:
        nose = mouth if style < 0.35 else mouth - body.down * 0.12 * body.head_axes[1]
        props.tube(canvas, rng, _route(rng, nose, away(0.7), 0.12))
    if style < 0.35:
        props.oxygen_mask(canvas, rng, body)
    elif style > 0.8:
        props.pacifier(canvas, rng, body)
    if covered and not early:
        _blanket(canvas, rng, frame)


def _expose(canvas: Canvas, rng: props.Rng) -> U8:
    """Add lens blur, uneven light, tint, vignetting and sensor noise."""
    w, h = canvas.size_wh
    blurred = cv2.GaussianBlur(canvas.rgb, (0, 0), max(rng.uniform(0.6, 1.2) * canvas.scale, 0.2))
    y, x = np.mgrid[-1:1:36j, -1:1:64j]
    slope = rng.uniform(0.05, 0.25)
    gain = 1 + slope * (canvas.light[0] * x + canvas.light[1] * y)
    gain *= 1 - rng.uniform(0.05, 0.22) * (x * x + y * y) / 2
    for _ in range(int(rng.integers(0, 3))):  # people and equipment outside the frame
        cx, cy, r = rng.uniform(-1.1, 1.1), rng.uniform(-1.1, 1.1), rng.uniform(0.25, 0.6)
        gain *= 1 - rng.uniform(0.1, 0.3) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / r**2)
    warm = rng.uniform(-0.07, 0.07)
    tint = rng.uniform(0.78, 1.12) * np.array([1 + warm, 1 + rng.uniform(-0.02, 0.02), 1 - warm])
    lamp = cv2.resize((gain[..., None] * tint).astype(np.float32), (w, h))
    lit = cv2.multiply(blurred, lamp, dtype=cv2.CV_32F)
    sigma = rng.uniform(1.5, 5)
    grain = rng.standard_normal((h, w), np.float32) * np.float32(sigma)
    chroma = rng.standard_normal(((h + 1) // 2, (w + 1) // 2, 3), np.float32) * np.float32(sigma)
    lit += cv2.resize(chroma, (w, h), interpolation=cv2.INTER_LINEAR)
    lit += grain[..., None]
    return np.asarray(cv2.convertScaleAbs(np.maximum(lit, 0)), np.uint8)


def _depth(canvas: Canvas, rng: props.Rng) -> NDArray[np.uint16]:
    """Return the depth of a bed plane that recedes towards the top of the picture, less the heights."""
    w, h = canvas.size_wh
    far, near = rng.uniform(1850, 2200), rng.uniform(1350, 1550)
    plane = np.linspace(far, near, h, dtype=np.float32)[:, None]
    lift = cv2.blur(canvas.lift_mm, (3, 3))
    depth = plane - lift + rng.standard_normal((h, w), np.float32) * np.float32(2.5)
    depth += noise(rng, (h, w), (18, 32)) * 4
    k = np.ones((3, 3), np.uint8)
    step = cv2.dilate(canvas.lift_mm, k) - cv2.erode(canvas.lift_mm, k)
    # The infrared camera loses the pattern at steep edges and outside its narrower view.
    edge = noise(rng, (h, w), (54, 96)) > 0.05
    depth[(step > 80) & edge] = 0
    side = max(round(w * rng.uniform(0.005, 0.03)), 1)
    depth[:, :side] = 0
    depth[:, w - side :] = 0
    return np.asarray(np.clip(depth, 0, 4500), np.uint16)


def _roi(canvas: Canvas, body: props.Body, rng: props.Rng) -> Box:
    parts = [body.torso, *(limb[0] for limb in (*body.arms, *body.legs))]
    parts += [body.on_head(np.array([-1.0, 1, 0, 0]), np.array([0, 0, -1.0, 1]))]
    points = np.concatenate(parts) * canvas.scale + np.asarray(canvas.origin)
    margin = body.unit * canvas.scale * rng.uniform(0.06, 0.14)
    w, h = canvas.size_wh
    x0, y0 = np.clip(np.floor(points.min(axis=0) - margin), 0, (w - 1, h - 1)).astype(int)
    x1, y1 = np.clip(np.ceil(points.max(axis=0) + margin), (x0 + 1, y0 + 1), (w, h)).astype(int)
    return int(x0), int(y0), int(x1 - x0), int(y1 - y0)


def _save(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise ValueError(f"cannot encode an image of shape {image.shape} as PNG")
    return data.tobytes()


def write_scene(scene: Scene, stem: str, out: Path) -> None:
    """Write images/, truth/ (0 or 255), instances/ (16-bit and JSON) and depth/ (mm) files."""
    h, w = scene.instances.shape
    record = {
        "roi_xywh": list(scene.roi_xywh),
        "size_wh": [w, h],
        "objects": [asdict(o) for o in scene.objects],
    }
    _save(out / "images" / f"{stem}.png", _png(np.ascontiguousarray(scene.rgb[..., ::-1])))
    _save(out / "truth" / f"{stem}.png", _png(scene.truth.astype(np.uint8) * np.uint8(255)))
    _save(out / "instances" / f"{stem}.png", _png(scene.instances))
    _save(out / "depth" / f"{stem}.png", _png(scene.depth_mm))
    _save(out / "instances" / f"{stem}.json", json.dumps(record).encode())


def read_objects(json_path: Path) -> tuple[Box, tuple[Instance, ...]]:
    """Read the region of interest and the objects of an instances/STEM.json file."""
    record = json.loads(json_path.read_text())
    x, y, w, h = (int(v) for v in record["roi_xywh"])
    objects = tuple(Instance(int(o["id"]), str(o["kind"]), bool(o["occlusion"])) for o in record["objects"])
    return (x, y, w, h), objects
