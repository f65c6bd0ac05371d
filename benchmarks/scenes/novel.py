"""Procedural pictures of kinds that the demo models never saw, with exact labels, to measure adaptation on.

A picture shows two to five bodies of one family on a textured ground of their own: an annotator's session is about
one kind of thing. Nothing in them resembles a bedside scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.scenes.canvas import F32, U8, relief
from maskrt.benchmarks.scenes.novel_families import FAMILIES, Family, Place
from maskrt.benchmarks.scenes.novel_outlines import Look, Outline
from maskrt.benchmarks.scenes.novel_textures import Rng, fractal
from maskrt.runtime.errors import InputError
from maskrt.runtime.files import cannot_write, write_files

NOVEL_WH = (768, 768)
VALIDATION, HELD_OUT = 800_000, 900_000  # first seeds of pictures to choose settings on, and to report figures on
FEWEST, MOST = 2, 5  # bodies in a picture
SHARES = (0.03, 0.25)  # of the picture that is seen of a body
SHORTEST, LONGEST = 64, 4  # pixels of the shorter side; times as long the longer one may be
_ATTEMPTS = 400
_FINE = 4  # subpixels per pixel and axis of an outline


@dataclass(frozen=True)
class NovelScene:
    """A picture and its truth.

    rgb: uint8 [H, W, 3]; labels: uint8 [H, W], 0 the ground and 1 to N the body that is seen at the pixel, each in one
    piece with 8-connectivity; family: a name in FAMILIES.
    """

    rgb: U8
    labels: U8
    family: str


@dataclass(frozen=True)
class _Body:
    """A body on the picture: coverage float32 [h, w] of 0 to 1, its top left pixel, and where its pixels lie on it."""

    cover: F32
    x: int
    y: int
    place: Place

    @property
    def window(self) -> tuple[slice, slice]:
        h, w = self.cover.shape
        return slice(self.y, self.y + h), slice(self.x, self.x + w)

    @property
    def mask(self) -> NDArray[np.bool_]:
        return np.asarray(self.cover >= 0.5, np.bool_)


def draw_novel(seed: int, size_wh: tuple[int, int] = NOVEL_WH, family: str | None = None) -> NovelScene:
    """Draw the picture of a seed.

    Args:
        seed: 0 or more; the same seed draws the same picture.
        size_wh: width and height in pixels.
        family: a name in FAMILIES; the seed chooses where it is left out, each family in turn.

    Raises:
        InputError: there is no picture of the seed, size or family.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: give 0 or more")
    if min(size_wh) < SHORTEST or max(size_wh) > LONGEST * min(size_wh):
        raise InputError(
            f"{size_wh[0]}x{size_wh[1]}: novel pictures have sides from {SHORTEST} pixels, "
            f"the longer one at most {LONGEST} times the shorter one"
        )
    names = list(FAMILIES)
    name = names[seed % len(names)] if family is None else family
    if name not in FAMILIES:
        raise InputError(f"unknown family {name!r}; known: {', '.join(names)}")
    rng = np.random.default_rng((seed, names.index(name)))
    look = rng.random(4)
    labels, bodies = _arrange(rng, FAMILIES[name], look, size_wh)
    return NovelScene(_expose(rng, _paint(rng, FAMILIES[name], look, labels, bodies)), labels, name)


def _arrange(rng: Rng, family: Family, look: Look, size_wh: tuple[int, int]) -> tuple[U8, list[_Body]]:
    """Return labels, and the bodies from the lowest to the topmost."""
    labels = np.zeros(size_wh[::-1], np.uint8)
    bodies: list[_Body] = []
    wanted = int(rng.integers(FEWEST, MOST + 1))
    usual = np.exp(rng.uniform(np.log(0.07), np.log(0.14)))  # share of the picture
    for _ in range(_ATTEMPTS):
        share = np.clip(usual * rng.lognormal(0, 0.35), 1.3 * SHARES[0], 0.7 * SHARES[1])
        body = _place(rng, family.outline(rng, look), float(share), size_wh)
        changed = labels.copy()
        changed[body.window][body.mask] = len(bodies) + 1
        if _readable(changed, [*bodies, body]):
            labels = changed
            bodies.append(body)
        if len(bodies) == wanted:
            break
    if len(bodies) < FEWEST:
        raise InputError(f"no room for {FEWEST} bodies in {size_wh[0]}x{size_wh[1]}: choose another size or seed")
    return labels, bodies


def _place(rng: Rng, outline: Outline, share: float, size_wh: tuple[int, int]) -> _Body:
    """Place an outline somewhere on the picture, mostly wholly inside."""
    extent = max(float(np.linalg.norm(p, axis=1).max()) for p in outline)
    scale = min((share * size_wh[0] * size_wh[1]) ** 0.5, 0.48 * min(size_wh) / extent)
    margin = scale * extent * (1.0 if rng.random() < 0.85 else 0.35)
    centre = rng.uniform(margin, np.asarray(size_wh) - margin)
    turn = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(turn), np.sin(turn)
    points = [p @ np.array([[c, s], [-s, c]]) * scale + centre for p in outline]
    low = np.floor(points[0].min(axis=0) - 8).clip(0).astype(int)
    high = np.minimum(np.ceil(points[0].max(axis=0) + 8), size_wh).astype(int)
    w, h = high - low
    fine = np.zeros((h * _FINE, w * _FINE), np.uint8)
    # Centres of pixels and of subpixels lie at whole numbers of either.
    fixed = [np.round(((p - low + 0.5) * _FINE - 0.5) * 16).astype(np.int32) for p in points]
    cv2.fillPoly(fine, fixed, 255, shift=4)
    cover = _one_piece(cv2.resize(fine, (int(w), int(h)), interpolation=cv2.INTER_AREA))
    y, x = np.mgrid[: int(h), : int(w)].astype(np.float32)
    x, y = (x + low[0] - centre[0]) / scale, (y + low[1] - centre[1]) / scale
    along, across = c * x + s * y, c * y - s * x
    depth = cv2.distanceTransform((cover >= 0.5).astype(np.uint8), cv2.DIST_L2, 5) / scale
    radius, angle = np.hypot(along, across), np.arctan2(across, along)
    place = Place(*(np.asarray(part, np.float32) for part in (along, across, radius, angle, depth)))
    return _Body(cover, int(low[0]), int(low[1]), place)


def _one_piece(cover: U8) -> F32:
    """Return coverage of 0 to 1, without pixels that a thin tip leaves apart from the rest."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats((cover >= 127.5).astype(np.uint8))
    largest = parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if len(stats) > 1 else parts > 0
    near = cv2.dilate(largest.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    keep = near & (largest | (cover < 127.5))
    return np.asarray(np.where(keep, cover, 0) / 255, np.float32)


def _readable(labels: U8, bodies: list[_Body]) -> bool:
    """Return whether every body is seen in one piece of a fair size, most of it uncovered."""
    for number, body in enumerate(bodies, 1):
        seen = (labels[body.window] == number).astype(np.uint8)
        area = int(np.count_nonzero(seen))
        if not SHARES[0] <= area / labels.size <= SHARES[1] or area < 0.65 * np.count_nonzero(body.mask):
            return False
        if cv2.connectedComponents(seen)[0] != 2:
            return False
    return True


def _paint(rng: Rng, family: Family, look: Look, labels: U8, bodies: list[_Body]) -> F32:
    """Paint the picture before the camera, float32 [H, W, 3]."""
    lamp = rng.uniform(0, 2 * np.pi)
    light = (float(np.cos(lamp)), float(np.sin(lamp)))
    tint = rng.normal(1, 0.05, 3) * rng.uniform(0.85, 1.15)
    busy = rng.uniform(0.4, 0.8)  # strength of all surfaces
    hide = rng.uniform(-0.5, 0.2)  # how far the bodies' colours are those of the ground
    ground_colours = np.asarray(family.ground_colours) * tint
    body_colours = (1 - hide) * np.asarray(family.body_colours) * tint + hide * ground_colours
    picture = _mixed(busy * family.ground(rng, labels.shape), ground_colours)
    size = min(labels.shape) / NOVEL_WH[0]
    blur = rng.uniform(0.5, 1.1) * size
    opacity = rng.uniform(0.8, 1.0)
    for body in bodies:
        _cast(picture, body, family.shadow, light, 6 * size)
        own = body_colours * rng.normal(1, 0.08) * rng.normal(1, 0.045, 3)
        tone = _mixed(busy * family.skin(rng, body.place, look), own)
        gain = 1 + family.relief * relief((body.cover * 255).astype(np.uint8), light)
        gain -= family.rim * np.exp(-body.place.depth / 0.025)
        alpha = opacity * cv2.GaussianBlur(body.cover, (0, 0), max(blur, 0.3))[..., None]
        view = picture[body.window]
        view += alpha * (tone * gain[..., None] - view)
    return picture


def _mixed(field: F32, colours: NDArray[np.float64]) -> F32:
    """Map a field of about -1 to 1 to colours between the first and the second, float32 [h, w, 3]."""
    share = np.clip(0.5 + 0.5 * field, -0.15, 1.15)[..., None]
    return np.asarray(colours[0] + share * (colours[1] - colours[0]), np.float32)


def _cast(picture: F32, body: _Body, strength: float, light: tuple[float, float], reach: float) -> None:
    """Darken the surroundings of a body on the side away from the lamp."""
    move = np.array([[1, 0, body.x - light[0] * reach], [0, 1, body.y - light[1] * reach]])
    whole = cv2.warpAffine(body.cover, move, picture.shape[1::-1])
    picture *= 1 - strength * cv2.GaussianBlur(whole, (0, 0), max(reach, 0.5))[..., None]


def _expose(rng: Rng, picture: F32) -> U8:
    """Add uneven light, the lens's blur and the sensor's noise."""
    h, w = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j].astype(np.float32)
    side = rng.uniform(0, 2 * np.pi)
    lamp = 1 + rng.uniform(0.08, 0.3) * (np.cos(side) * x + np.sin(side) * y)
    lamp = (lamp + 0.12 * fractal(rng, (h, w), 3, 2)) * (1 - rng.uniform(0.05, 0.25) * (x * x + y * y) / 2)
    lit = cv2.GaussianBlur(picture * lamp[..., None], (0, 0), max(rng.uniform(0.5, 1.2) * min(h, w) / NOVEL_WH[0], 0.2))
    lit += rng.standard_normal((h, w, 1), np.float32) * np.float32(rng.uniform(1.5, 4.5))
    lit += rng.standard_normal((h, w, 3), np.float32) * np.float32(rng.uniform(0.5, 2))
    return np.asarray(np.clip(np.round(lit), 0, 255), np.uint8)


def write_novel(scene: NovelScene, stem: str, out: Path) -> None:
    """Write images/STEM.png and truth/STEM.png, whose grey values are the labels.

    Raises:
        MaskrtError: one cannot be written; nothing is left behind.
    """
    image = out / "images" / f"{stem}.png"
    try:
        write_files({image: _png(scene.rgb[..., ::-1]), out / "truth" / f"{stem}.png": _png(scene.labels)})
    except OSError as error:
        raise cannot_write(image, error) from error


def _png(image: U8) -> bytes:
    _, data = cv2.imencode(".png", np.ascontiguousarray(image))
    return bytes(data)
