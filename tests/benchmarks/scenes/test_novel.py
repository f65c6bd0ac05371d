"""The novel pictures are reproducible, their labels exact, and their families unlike each other."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrt.benchmarks.scenes.novel import FEWEST, MOST, NOVEL_WH, SHARES, NovelScene, draw_novel, write_novel
from maskrt.benchmarks.scenes.novel_families import FAMILIES
from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.io.images import read_image
from maskrt.runtime.io.masks import read_labels

SMALL = (192, 192)


@pytest.fixture(scope="module")
def scenes() -> list[NovelScene]:
    return [draw_novel(seed, SMALL) for seed in range(24)]


def pieces(mask: np.ndarray) -> int:
    """Connected regions by flood, diagonals included: the plain way."""
    left, count = mask.copy(), 0
    while left.any():
        count += 1
        front = [tuple(np.argwhere(left)[0])]
        while front:
            y, x = front.pop()
            if left[y, x]:
                left[y, x] = False
                around = [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
                front += [p for p in around if 0 <= p[0] < mask.shape[0] and 0 <= p[1] < mask.shape[1]]
    return count


def test_same_seed_gives_same_picture(scenes: list[NovelScene]) -> None:
    again = draw_novel(5, SMALL)
    assert np.array_equal(again.rgb, scenes[5].rgb)
    assert np.array_equal(again.labels, scenes[5].labels)
    assert not np.array_equal(again.labels, scenes[11].labels)


def test_families_come_in_turn_and_by_name(scenes: list[NovelScene]) -> None:
    assert [scene.family for scene in scenes] == list(FAMILIES) * 4
    chosen = draw_novel(5, SMALL, "rings")
    assert chosen.family == "rings"
    assert not np.array_equal(chosen.labels, scenes[5].labels)
    own = draw_novel(5, SMALL, scenes[5].family)
    assert np.array_equal(own.rgb, scenes[5].rgb)


def test_every_body_is_seen_in_one_piece_of_a_fair_size(scenes: list[NovelScene]) -> None:
    for scene in scenes:
        assert scene.labels.dtype == np.uint8
        numbers = np.unique(scene.labels)
        assert np.array_equal(numbers, np.arange(len(numbers)))  # the ground, and no number left out
        assert FEWEST <= len(numbers) - 1 <= MOST
        for number in numbers[1:]:
            mask = scene.labels == number
            assert SHARES[0] <= mask.mean() <= SHARES[1]
            assert pieces(mask) == 1


@pytest.mark.parametrize("seed", range(12))
def test_masks_of_the_demo_can_hold_every_outline(seed: int) -> None:
    """Or no click could fix what is wrong: the demo's masks have 96 x 96 cells."""
    labels = draw_novel(seed).labels
    for number in range(1, int(labels.max()) + 1):
        mask = labels == number
        cells = cv2.resize(mask.astype(np.float32), (96, 96), interpolation=cv2.INTER_AREA)
        held = cv2.resize(cells, NOVEL_WH, interpolation=cv2.INTER_LINEAR) > 0.5
        assert (held & mask).sum() / (held | mask).sum() > 0.93


def test_most_bodies_lie_clear_of_the_border(scenes: list[NovelScene]) -> None:
    border, bodies = 0, 0
    for scene in scenes:
        edge = np.concatenate([scene.labels[0], scene.labels[-1], scene.labels[:, 0], scene.labels[:, -1]])
        border += len(np.setdiff1d(edge, 0))
        bodies += int(scene.labels.max())
    assert 0 < border < 0.3 * bodies


def test_some_bodies_overlap(scenes: list[NovelScene]) -> None:
    def touch(labels: np.ndarray) -> bool:
        left, right = labels[:, :-1], labels[:, 1:]
        return bool(((left != right) & (left > 0) & (right > 0)).any())

    assert sum(touch(scene.labels) for scene in scenes) >= 6


def test_ground_is_seen_through_rings() -> None:
    holes = 0
    for seed in range(4):
        labels = draw_novel(seed, SMALL, "rings").labels
        for number in range(1, int(labels.max()) + 1):
            mask = np.pad(labels == number, 1).astype(np.uint8)
            holes += cv2.connectedComponents(1 - mask, connectivity=4)[0] > 2
    assert holes >= 8


def test_labels_follow_what_is_seen(scenes: list[NovelScene]) -> None:
    # Across an outline colours differ more than across the same step anywhere else.
    steps = []
    for scene in scenes:
        grey = cv2.GaussianBlur(scene.rgb, (0, 0), 1.5).astype(np.float32)
        change = np.abs(grey[:, 4:] - grey[:, :-4]).sum(-1)
        outline = scene.labels[:, 4:] != scene.labels[:, :-4]
        steps.append(change[outline].mean() / change[~outline].mean())
    assert min(steps) > 1.05
    assert np.median(steps) > 1.5


@pytest.mark.parametrize("size", [(64, 64), (96, 250), (501, 333), NOVEL_WH])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_arrays_follow_the_size(size: tuple[int, int], family: str) -> None:
    scene = draw_novel(900_003, size, family)
    assert scene.rgb.shape == (*size[::-1], 3)
    assert scene.labels.shape == size[::-1]
    assert scene.rgb.dtype == np.uint8
    assert 15 < scene.rgb.mean() < 240
    assert scene.rgb.std() > 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "seed -1: give 0 or more"),
        ((0, (63, 200)), "63x200: novel pictures have sides from 64 pixels, "),
        ((0, (100, 401)), "100x401: .* at most 4 times"),
        ((0, SMALL, "birds"), "unknown family 'birds'; known: rosettes, amoebae, stars, rings, lichens, moths"),
    ],
)
def test_bad_input_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_novel(*arguments)  # type: ignore[arg-type]


def test_written_files_read_back(scenes: list[NovelScene], tmp_path: Path) -> None:
    write_novel(scenes[1], "a", tmp_path)
    assert np.array_equal(read_image(tmp_path / "images/a.png"), scenes[1].rgb)
    assert np.array_equal(read_labels(tmp_path / "truth/a.png"), scenes[1].labels)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.png", "a.png"]


def test_a_folder_that_cannot_be_written_is_reported(scenes: list[NovelScene], tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(b"a file where the folder should be")
    with pytest.raises(MaskrtError, match=r"cannot write .*a\.png"):
        write_novel(scenes[0], "a", tmp_path)
