"""Training data: scenes that `maskrt scenes` wrote, their region of interest or the whole, kept in memory.

The folder is the contract between the scenes and the training; nothing here knows how a scene is drawn.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

OUTSIDE = 65535  # instance of the padding beyond the picture
IGNORE = -100  # the label that PyTorch's cross-entropy skips
GROUND = "ground"  # the kind of the ground that objects lie on, which is no object


class Drawn(NamedTuple):
    """One drawn object."""

    kind: str
    occlusion: bool


@dataclass(frozen=True)
class View:
    """A picture as a network gets it: in the top left of a square, and beyond it black with instance OUTSIDE.

    rgb: uint8 [S, S, 3]; instances: uint16 [S, S]; objects: id in `instances` -> the object drawn there.
    """

    rgb: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    objects: dict[int, Drawn]

    @property
    def occlusions(self) -> list[int]:
        """Ids of the occlusions."""
        return [identity for identity, drawn in self.objects.items() if drawn.occlusion]

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Bool [S, S]: the visible object is an occlusion."""
        return np.isin(self.instances, self.occlusions)

    def kinds(self, names: Sequence[str], stride: int) -> NDArray[np.int64]:
        """Return, as int64 [S / stride, S / stride], the index into `names` of the object at each cell's centre.

        It is IGNORE outside.
        """
        table = np.full(OUTSIDE + 1, IGNORE)
        for identity, drawn in self.objects.items():
            table[identity] = names.index(drawn.kind)
        return table[self.instances[stride // 2 :: stride, stride // 2 :: stride]]

    def boxes(self, stride: int) -> NDArray[np.float32]:
        """Return float32 [4, S / stride, S / stride]: centre x, y, width, height of the object at each cell's centre.

        They are shares of S, over the object's visible cells.
        """
        cells = self.instances[stride // 2 :: stride, stride // 2 :: stride]
        _, inverse = np.unique(cells, return_inverse=True)
        inverse = inverse.reshape(cells.shape)
        edges = []
        for lines in (inverse.T, inverse):  # column by column for x, row by row for y
            first, last = np.full((2, inverse.max() + 1), -1)
            for place, line in enumerate(lines):
                last[line] = place
                first[line] = np.where(first[line] < 0, place, first[line])
            edges += [first, last + 1]
        x0, x1, y0, y1 = edges
        table = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]).astype(np.float32)
        return table[:, inverse] / np.float32(len(cells))


@dataclass(frozen=True)
class TrainingScene:
    """One scene's region of interest, or the whole of it, longest side scaled to a fixed size.

    rgb: uint8 [H, W, 3]; instances: uint16 [H, W]; objects: id in `instances` -> the object drawn there.
    """

    rgb: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    objects: dict[int, Drawn]


def load_scenes(folder: Path, longest_side: int, workers: int = 2, whole: bool = False) -> list[TrainingScene]:
    """Read every scene of a folder, in the order of their names.

    Args:
        whole: the whole pictures, not only their regions of interest.
    """
    stems = sorted(path.stem for path in (folder / "images").glob("*.png"))
    if not stems:
        raise FileNotFoundError(f"{folder / 'images'} holds no PNG: run maskrt scenes --out {folder}")
    with ProcessPoolExecutor(workers) as pool:
        count = len(stems)
        return list(pool.map(_load, [folder] * count, stems, [longest_side] * count, [whole] * count, chunksize=8))


def _load(folder: Path, stem: str, longest_side: int, whole: bool) -> TrainingScene:
    about = json.loads((folder / "instances" / f"{stem}.json").read_text())
    with Image.open(folder / "images" / f"{stem}.png") as image:
        x, y, width, height = (0, 0, *image.size) if whole else about["roi_xywh"]
        scale = longest_side / max(width, height)
        size = int(width * scale + 0.5), int(height * scale + 0.5)
        box = (x, y, x + width, y + height)
        rgb = np.asarray(image.convert("RGB").crop(box).resize(size, Image.Resampling.BILINEAR))
    with Image.open(folder / "instances" / f"{stem}.png") as image:
        instances = np.asarray(image, dtype=np.uint16)[y : y + height, x : x + width]
    rows = np.minimum(((np.arange(size[1]) + 0.5) / scale).astype(np.int64), height - 1)
    columns = np.minimum(((np.arange(size[0]) + 0.5) / scale).astype(np.int64), width - 1)
    objects = {item["id"]: Drawn(item["kind"], item["occlusion"]) for item in about["objects"]}
    return TrainingScene(rgb, np.ascontiguousarray(instances[np.ix_(rows, columns)]), objects)


def copy_paste(target: View, source: View, rng: np.random.Generator) -> View:
    """Copy a tenth of the source's occlusions, at least one, to a shifted place in the target.

    Source: "Simple copy-paste", at the rate of the SOSS document (10% of objects). The pasted objects get new ids.
    """
    present = np.intersect1d(source.instances, source.occlusions)
    if not present.size:
        return target
    rgb, instances, objects = target.rgb.copy(), target.instances.copy(), dict(target.objects)
    chosen = rng.choice(present, size=max(1, round(present.size / 10)), replace=False)
    height, width = instances.shape
    free = int(instances[instances != OUTSIDE].max(initial=0)) + 1
    for offset, identity in enumerate(chosen):
        rows, columns = np.nonzero(source.instances == identity)
        shift = rng.integers(-height // 8, height // 8 + 1, size=2)
        to_rows, to_columns = rows + shift[0], columns + shift[1]
        inside = (to_rows >= 0) & (to_rows < height) & (to_columns >= 0) & (to_columns < width)
        rows, columns, to = rows[inside], columns[inside], (to_rows[inside], to_columns[inside])
        seen = instances[to] != OUTSIDE
        rows, columns, to = rows[seen], columns[seen], (to[0][seen], to[1][seen])
        rgb[to] = source.rgb[rows, columns]
        instances[to] = free + offset
        objects[free + offset] = source.objects[int(identity)]
    return View(rgb, instances, objects)


def jitter(rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Change brightness, contrast and saturation each by up to 20%, half of the time; return float32 in 0..255."""
    values = rgb.astype(np.float32)
    if rng.random() < 0.5:
        brightness, contrast, saturation = rng.uniform(0.8, 1.2, size=3).astype(np.float32)
        grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
        values = grey[..., None] + saturation * (values - grey[..., None])
        values = (values - grey.mean()) * contrast + grey.mean() * brightness
    return np.clip(values, 0, 255)


def random_view(scene: TrainingScene, size: int, rng: np.random.Generator) -> View:
    """Put the picture into a size x size square, flipped and transposed half of the time: beds stand any way round."""
    part_rgb, part = scene.rgb, scene.instances
    if rng.random() < 0.5:
        part_rgb, part = part_rgb[:, ::-1], part[:, ::-1]
    if rng.random() < 0.5:
        part_rgb, part = part_rgb[::-1], part[::-1]
    if rng.random() < 0.5:
        part_rgb, part = part_rgb.swapaxes(0, 1), part.T
    rgb = np.zeros((size, size, 3), np.uint8)
    instances = np.full((size, size), OUTSIDE, np.uint16)
    rgb[: part.shape[0], : part.shape[1]] = part_rgb
    instances[: part.shape[0], : part.shape[1]] = part
    return View(rgb, instances, scene.objects)


def kinds_of(scenes: list[TrainingScene]) -> list[str]:
    """Return every kind of object that is drawn anywhere, sorted."""
    return sorted({drawn.kind for scene in scenes for drawn in scene.objects.values()})


@dataclass(frozen=True)
class SceneViews:
    """Views of size x size pixels of random scenes, half of them with occlusions of another one."""

    scenes: Sequence[TrainingScene]
    size: int

    def __call__(self, rng: np.random.Generator) -> View:
        """Draw the next view."""
        view = self._view(rng)
        return copy_paste(view, self._view(rng), rng) if rng.random() < 0.5 else view

    def _view(self, rng: np.random.Generator) -> View:
        return random_view(self.scenes[int(rng.integers(len(self.scenes)))], self.size, rng)
