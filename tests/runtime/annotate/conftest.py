"""A folder of pictures, a session without networks, and the desk on them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_annotator import FakeAnnotator
from numpy.typing import NDArray
from PIL import Image

from maskrt.runtime.annotate.desk import Desk
from maskrt.runtime.annotate.pictures import Opened, Picture, find_pictures, open_picture
from maskrt.runtime.annotate.store import Store

WIDTH, HEIGHT = 80, 60
CLASSES = ("mattress", "blanket")


@pytest.fixture
def pictures(tmp_path: Path, rng: np.random.Generator) -> list[Picture]:
    """Three of 80 x 60, of which the second cannot be read."""
    folder = tmp_path / "ward"
    folder.mkdir()
    for name in ("bed_1.png", "bed_3.png"):
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / name)
    (folder / "bed_2.png").write_bytes(b"no picture")
    return find_pictures(str(folder))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def store(out: Path) -> Store:
    return Store(out, CLASSES)


@pytest.fixture
def session() -> FakeAnnotator:
    return FakeAnnotator()


@pytest.fixture
def desk(session: FakeAnnotator, pictures: list[Picture], store: Store) -> Desk:
    return Desk(session, pictures, store)


@pytest.fixture
def opened(pictures: list[Picture]) -> Opened:
    return open_picture(pictures[0], 10**6)


@pytest.fixture
def draw(rng: np.random.Generator) -> Callable[[], NDArray[np.bool_]]:
    """draw() -> a mask of a few random rectangles, never empty."""

    def drawn() -> NDArray[np.bool_]:
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        for _ in range(3):
            y, x = rng.integers(0, HEIGHT), rng.integers(0, WIDTH)
            mask[y : y + rng.integers(1, 30), x : x + rng.integers(1, 40)] = True
        return mask

    return drawn
