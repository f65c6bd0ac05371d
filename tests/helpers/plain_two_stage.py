"""Two-stage segmentation written down plainly in float64 NumPy, for a grid: what the runtime's answer is held to."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from maskrt.runtime.bundle.bundle import open_bundle


def plain_two_stage(bundle: Path, rgb: np.ndarray, **options: Any) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Probabilities float64 [C, h, w], and row and column of the patches looked at again, the least decided first."""
    manifest: Any = open_bundle(bundle).manifest
    spec, settings = manifest.two_stage, {**_builtins(manifest.patch_selection), **options}
    sessions = {role: onnxruntime.InferenceSession(bundle / f"{role}.onnx") for role in ("low", "high")}
    size = [spec.size, spec.size]
    if spec.fit == "keep":
        size = [max(1, int(side * spec.size / max(rgb.shape[:2]) + 0.5)) for side in rgb.shape[:2]]
    image = Image.fromarray(rgb) if spec.channels == 3 else Image.fromarray(rgb).convert("L")
    working, small = (
        np.asarray(image.resize(hw[::-1], Image.Resampling.BILINEAR), np.float64).reshape(*hw, spec.channels)
        for hw in (size, [max(1, int(side / spec.shrink + 0.5)) for side in size])
    )
    logits = answer(
        sessions["low"], small, [-(-side // spec.multiple) * spec.multiple for side in small.shape[:2]], spec
    )
    found = resized(probability(logits), size)
    ranked = found
    if settings["rank"] == "logit":
        ranked = resized(logits if len(logits) == 1 else logits[1:] - logits[:1], size)
    side = spec.size // settings["patches"]
    grid = [(i, j) for i in range(-(-size[0] // side)) for j in range(-(-size[1] // side))]
    scores = [score(ranked[:, i * side : (i + 1) * side, j * side : (j + 1) * side]) for i, j in grid]
    chosen = [grid[n] for n in sorted(range(len(grid)), key=lambda n: (round(scores[n], 6), n))]
    if settings["uncertainty"] is not None:
        chosen = [at for at in chosen if scores[grid.index(at)] <= settings["uncertainty"]]
    elif settings["patch_fraction"] is not None:
        chosen = chosen[: max(1, int(len(grid) * settings["patch_fraction"] + 0.5))]
    else:
        chosen = chosen[: settings["patch_count"] or settings["patches"]]
    for i, j in chosen if settings["windows"] == "grid" else []:
        at = slice(i * side, (i + 1) * side), slice(j * side, (j + 1) * side)
        under = found[:, *at]
        under[:] = probability(answer(sessions["high"], working[at], [side, side], spec))
    whole = resized(found, list(rgb.shape[:2]))
    return (np.concatenate([1 - whole, whole]) if len(whole) == 1 else whole), chosen


def answer(session: Any, picture: np.ndarray, padded_hw: list[int], spec: Any) -> np.ndarray:
    """The logits of one picture, 0 to 255, padded with black and cropped again."""
    padded = np.zeros((*padded_hw, spec.channels))
    padded[: picture.shape[0], : picture.shape[1]] = picture
    normalised = (padded / 255 - np.array(spec.mean)) / np.array(spec.std)
    (logits,) = session.run(None, {"picture": normalised.transpose(2, 0, 1)[None].astype(np.float32)})
    return logits[0, :, : picture.shape[0], : picture.shape[1]].astype(np.float64)


def probability(logits: np.ndarray) -> np.ndarray:
    """[1, h, w] of two classes, else [C, h, w]."""
    both = np.concatenate([np.zeros_like(logits), logits]) if len(logits) == 1 else logits
    shares = np.exp(both - both.max(axis=0))
    shares /= shares.sum(axis=0)
    return shares[1:] if len(shares) == 2 else shares


def resized(maps: np.ndarray, size_hw: list[int]) -> np.ndarray:
    """Bilinear, half-pixel centres, one axis after the other."""
    for axis, size in ((1, size_hw[0]), (2, size_hw[1])):
        before = maps.shape[axis]
        centres = np.clip((np.arange(size) + 0.5) * before / size - 0.5, 0, before - 1)
        first = np.minimum(centres.astype(int), before - 1)
        share = np.expand_dims(centres - first, (0, 2) if axis == 1 else (0, 1))
        after = np.minimum(first + 1, before - 1)
        maps = np.take(maps, first, axis) * (1 - share) + np.take(maps, after, axis) * share
    return maps


def score(patch: np.ndarray) -> float:
    """0 is uncertainty."""
    mean = patch.mean(axis=(1, 2))
    if len(mean) == 1:
        return abs(mean[0] - 0.5)
    return 0.5 * (1 + sum(p * np.log(p) for p in mean if p > 0) / np.log(len(mean)))


def _builtins(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}
