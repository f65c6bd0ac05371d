"""The kinds of bodies in the novel pictures, each with its look and the ground it hides on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from maskrt.benchmarks.scenes import novel_outlines as outlines
from maskrt.benchmarks.scenes.canvas import F32, Colour
from maskrt.benchmarks.scenes.novel_outlines import Look, Outline
from maskrt.benchmarks.scenes.novel_textures import Rng, SizeHw, fractal, grain, pebbles, specks, stripes


@dataclass(frozen=True)
class Place:
    """Where the pixels of a body lie on it, each float32 [h, w]; lengths in the root of the body's area.

    x and y: along and across; radius and angle: the same around the middle; depth: from the outline inwards.
    """

    x: F32
    y: F32
    radius: F32
    angle: F32
    depth: F32


@dataclass(frozen=True)
class Family:
    """A kind of body on its ground.

    Fields are about -1 to 1 and choose between a dark and a light colour (RGB, 0 to 255). relief: how round a body is
    shaded; rim: how dark its outline is, below 0 how light; shadow: how dark the ground becomes around it.
    """

    outline: Callable[[Rng, Look], Outline]
    ground: Callable[[Rng, SizeHw], F32]
    skin: Callable[[Rng, Place, Look], F32]
    ground_colours: tuple[Colour, Colour]
    body_colours: tuple[Colour, Colour]
    relief: float
    rim: float
    shadow: float


def _soil(rng: Rng, size_hw: SizeHw) -> F32:
    tone, high = pebbles(rng, size_hw, rng.uniform(45, 70))
    weeds = specks(rng, size_hw, rng.uniform(22, 34), 0.16)
    return np.asarray(0.3 * tone + 0.35 * high + 0.4 * fractal(rng, size_hw, 5) + 0.5 * weeds, np.float32)


def _leaves(rng: Rng, place: Place, look: Look) -> F32:
    leaves = 5 + int(4 * look[0])
    veins = np.cos(place.angle * leaves) * 0.45 + 0.25 * np.cos(60 * place.radius - 3 * np.cos(place.angle * leaves))
    return np.asarray(veins + 0.4 * fractal(rng, place.x.shape, 9) + 0.7 * (place.radius - 0.4), np.float32)


def _plasma(rng: Rng, size_hw: SizeHw) -> F32:
    debris = specks(rng, size_hw, rng.uniform(60, 90), 0.05)
    return np.asarray(
        0.5 * fractal(rng, size_hw, 3) + 0.4 * fractal(rng, size_hw, 60, 3, 0.9) - 0.8 * debris, np.float32
    )


def _cell(rng: Rng, place: Place, look: Look) -> F32:
    x, y = place.x - rng.uniform(-0.12, 0.12), place.y - rng.uniform(-0.12, 0.12)
    nucleus = np.exp(-(((x * x + y * y) / (0.13 + 0.06 * look[1]) ** 2) ** 3))
    tone, high = pebbles(rng, place.x.shape, 26)
    return np.asarray(0.25 * tone + 0.35 * high + 0.3 * fractal(rng, place.x.shape, 5) - 1.1 * nucleus, np.float32)


def _sand(rng: Rng, size_hw: SizeHw) -> F32:
    tone, high = pebbles(rng, size_hw, rng.uniform(26, 44))
    ripples = stripes(rng, size_hw, rng.uniform(5, 9), rng.uniform(0, np.pi), 0.35)
    return np.asarray(0.45 * tone + 0.4 * high + 0.25 * ripples + 0.2 * fractal(rng, size_hw, 40, 2), np.float32)


def _warts(rng: Rng, place: Place, look: Look) -> F32:
    arms = 5 + int(5 * look[0])
    tone, high = pebbles(rng, place.x.shape, 24)
    return np.asarray(
        0.4 * tone + 0.5 * high + 0.35 * np.cos(arms * place.angle) + 0.3 * fractal(rng, place.x.shape, 4), np.float32
    )


def _planks(rng: Rng, size_hw: SizeHw) -> F32:
    bands = stripes(rng, size_hw, rng.uniform(9, 16), rng.uniform(-0.2, 0.2), 0.5)
    return np.asarray(0.5 * bands + 0.6 * grain(rng, size_hw, 90, 14) + 0.3 * fractal(rng, size_hw, 4), np.float32)


def _segments(rng: Rng, place: Place, look: Look) -> F32:
    spokes = np.sin(place.angle * (22 + int(20 * look[2])) + 5 * fractal(rng, place.x.shape, 3, 2))
    return np.asarray(
        0.55 * spokes + 0.4 * np.sin(34 * place.radius) + 0.4 * fractal(rng, place.x.shape, 8), np.float32
    )


def _rock(rng: Rng, size_hw: SizeHw) -> F32:
    cracks = np.exp(-((fractal(rng, size_hw, 5, 4) / 0.05) ** 2))
    return np.asarray(
        0.7 * fractal(rng, size_hw, 7, 6, 0.75) - 0.7 * cracks + 0.5 * specks(rng, size_hw, 48, 0.1), np.float32
    )


def _maze(rng: Rng, place: Place, look: Look) -> F32:
    folds = np.sin(9 * fractal(rng, place.x.shape, 7 + 5 * look[1], 2, 0.4))
    return np.asarray(
        0.6 * folds + 0.4 * fractal(rng, place.x.shape, 20, 3) + 0.3 * np.exp(-place.depth / 0.05), np.float32
    )


def _bark(rng: Rng, size_hw: SizeHw) -> F32:
    ridges = np.tanh(3 * grain(rng, size_hw, rng.uniform(18, 30), 7))
    return np.asarray(
        0.55 * ridges + 0.5 * grain(rng, size_hw, 110, 9) + 0.35 * fractal(rng, size_hw, 6, 5), np.float32
    )


def _wings(rng: Rng, place: Place, look: Look) -> F32:
    # Both wings carry the same pattern, so it depends on the distance from the middle line.
    out = np.abs(place.y)
    bands = np.sin(2 * np.pi * (place.radius * (4 + 3 * look[2]) + 0.3 * np.cos(4 * place.angle)))
    eyes = sum(
        np.cos(np.minimum(np.hypot(place.x - x, out - 0.45) / (0.05 + 0.04 * look[3]), np.pi)) + 1 for x in (0.3, -0.28)
    )
    body = np.exp(-((out / 0.05) ** 2))
    return np.asarray(0.5 * bands - 0.6 * eyes - 0.6 * body + 0.45 * grain(rng, place.x.shape, 40, 6), np.float32)


FAMILIES: dict[str, Family] = {
    "rosettes": Family(
        outlines.rosette, _soil, _leaves,
        ((78, 62, 42), (150, 128, 92)), ((44, 66, 36), (116, 140, 78)),
        0.2, 0.15, 0.3,
    ),
    "amoebae": Family(
        outlines.amoeba, _plasma, _cell,
        ((150, 150, 148), (198, 196, 192)), ((96, 112, 132), (164, 174, 188)),
        0.12, -0.1, 0.08,
    ),
    "stars": Family(
        outlines.star, _sand, _warts,
        ((112, 94, 76), (198, 178, 148)), ((104, 64, 52), (192, 132, 104)),
        0.3, 0.1, 0.3,
    ),
    "rings": Family(
        outlines.ring, _planks, _segments,
        ((82, 62, 46), (164, 132, 98)), ((92, 84, 92), (204, 188, 190)),
        0.3, 0.1, 0.3,
    ),
    "lichens": Family(
        outlines.lichen, _rock, _maze,
        ((86, 88, 88), (166, 166, 160)), ((96, 108, 92), (184, 196, 158)),
        0.1, 0.0, 0.12,
    ),
    "moths": Family(
        outlines.moth, _bark, _wings,
        ((66, 56, 46), (160, 146, 126)), ((92, 66, 40), (196, 152, 98)),
        0.15, 0.1, 0.25,
    ),
}  # fmt: skip
"""Families by name; a seed chooses the family at the seed modulo their number."""
