"""Outlines of the bodies in the novel pictures: jagged, armed, fringed, pierced and winged.

An outline is a list of closed polygons, float64 [N, 2]; a point is inside where it is inside an odd number of them.
`look`, float64 [4] of 0 to 1, is the part that the bodies of one picture share.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.scenes.canvas import Points
from maskrt.benchmarks.scenes.novel_textures import Rng

Outline = list[Points]
Look = NDArray[np.float64]
_ROUND = np.linspace(0, 2 * np.pi, 720, endpoint=False)


def rosette(rng: Rng, look: Look) -> Outline:
    """Outline toothed leaves around a heart."""
    leaves = 5 + int(4 * look[0])
    leaf = np.abs(np.cos(leaves * _ROUND / 2)) ** (0.6 + 0.8 * look[1])
    teeth = np.mod(_ROUND * leaves * (5 + int(4 * look[2])) / (2 * np.pi), 1)
    radius = 0.26 + 0.74 * leaf * _per_lobe(rng, leaves, 0.22) * (1 - 0.26 * teeth)
    return _unit([_polar(radius, rng.normal(0, 0.25))])


def amoeba(rng: Rng, look: Look) -> Outline:
    """Outline a soft body with a few long feet."""
    radius = 1 + _waves(rng, range(2, 7), 0.1)
    for _ in range(3 + int(4 * look[0])):
        away = np.angle(np.exp(1j * (_ROUND - rng.uniform(0, 2 * np.pi))))
        radius += rng.uniform(0.35, 1.0) * np.exp(-((away / rng.uniform(0.09, 0.17)) ** 2))
    return _unit([_polar(radius, rng.normal(0, 0.3))])


def star(rng: Rng, look: Look) -> Outline:
    """Outline arms that bend the same way."""
    arms = 5 + int(5 * look[0])
    arm = (0.5 + 0.5 * np.cos(arms * _ROUND)) ** (1.0 + 0.7 * look[1])
    radius = 0.3 + 0.7 * arm * _per_lobe(rng, arms, 0.2)
    return _unit([_polar(radius + _waves(rng, range(20, 30), 0.004), rng.normal(0, 0.5))])


def ring(rng: Rng, look: Look) -> Outline:
    """Outline a scalloped band around a hole through which the ground is seen."""
    scallops = 0.05 * np.cos((9 + int(12 * look[0])) * _ROUND)
    outer = 1 + _waves(rng, range(2, 5), 0.07) + scallops
    inner = (0.38 + 0.2 * look[1]) * (1 + _waves(rng, range(2, 6), 0.09))
    stretch = np.array([1, rng.uniform(0.65, 1)])
    return _unit([_polar(outer) * stretch, (_polar(inner) + rng.uniform(-0.06, 0.06, 2)) * stretch])


def lichen(rng: Rng, look: Look) -> Outline:
    """Outline a frayed patch, gnawed through in places."""
    radius = 1 + _waves(rng, range(2, 8), 0.13) + _waves(rng, range(8, 30), 0.012 + 0.012 * look[0])
    holes = [
        0.16 * rng.uniform(0.7, 1.2) * _polar(1 + _waves(rng, range(2, 9), 0.14))
        + 0.42 * np.array([np.cos(angle), np.sin(angle)])
        for angle in rng.uniform(0, 2 * np.pi) + np.array([0, 2.1, 4.2])[: int(rng.integers(0, 4))]
    ]
    return _unit([_polar(np.maximum(radius, 0.7)), *holes])


def moth(rng: Rng, look: Look) -> Outline:
    """Outline two pairs of wings with notched ends, the same on both sides, and a body."""
    side = np.abs(np.angle(np.exp(1j * _ROUND)))
    spread = rng.uniform(0.85, 1.1)
    fore = np.exp(-(((side - spread) / (0.46 + 0.12 * look[0])) ** 4))
    hind = (0.55 + 0.25 * look[1]) * np.exp(-(((side - 2.15) / 0.6) ** 4))
    notches = 0.05 * np.cos(side * (16 + int(14 * look[2])))
    radius = 0.3 + np.maximum(fore, hind) * (1 + notches) + 0.2 * np.exp(-((side / 0.14) ** 2))
    return _unit([_polar(radius)])


def _per_lobe(rng: Rng, lobes: int, spread: float) -> Points:
    """Return a length for each of the lobes, [720], that changes where two of them meet."""
    lengths = rng.uniform(1 - spread, 1 + spread, lobes)
    return np.asarray(lengths[np.round(_ROUND * lobes / (2 * np.pi)).astype(int) % lobes])


def _waves(rng: Rng, counts: range, strength: float) -> Points:
    """Return random waves around a circle, [720]."""
    total = np.zeros_like(_ROUND)
    for count in counts:
        total += rng.normal(0, strength) * np.cos(count * _ROUND + rng.uniform(0, 2 * np.pi))
    return total


def _polar(radius: Points, swirl: float = 0.0) -> Points:
    """Return points of a radius around the origin; `swirl`, in radians per radius, bends the parts that stand out."""
    angle = _ROUND + swirl * radius
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _unit(outline: Outline) -> Outline:
    """Scale the outline to an area of 1."""
    areas = [abs(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - p[:, 1] * np.roll(p[:, 0], -1))) / 2 for p in outline]
    scale = (areas[0] - sum(areas[1:])) ** -0.5
    return [p * scale for p in outline]
