"""The procedural scenes are reproducible and their truth is exact."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrt.benchmarks.scenes.bedside import Scene, draw_scene, read_objects, write_scene

SMALL = (480, 270)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed, SMALL) for seed in range(10)]


def test_same_seed_gives_same_scene(scenes: list[Scene]) -> None:
    again = draw_scene(3, SMALL)
    assert np.array_equal(again.rgb, scenes[3].rgb)
    assert np.array_equal(again.instances, scenes[3].instances)
    assert np.array_equal(again.depth_mm, scenes[3].depth_mm)
    assert again.objects == scenes[3].objects
    assert again.roi_xywh == scenes[3].roi_xywh
    assert not np.array_equal(again.rgb, scenes[4].rgb)


def test_objects_are_exactly_the_visible_ids(scenes: list[Scene]) -> None:
    for scene in scenes:
        ids = [o.id for o in scene.objects]
        assert len(set(ids)) == len(ids)
        assert sorted(ids) == np.unique(scene.instances).tolist()


def test_room_is_id_zero(scenes: list[Scene]) -> None:
    for scene in scenes:
        room = scene.objects[0]
        assert (room.id, room.kind, room.occlusion) == (0, "room", False)


def test_truth_is_the_union_of_occlusions(scenes: list[Scene]) -> None:
    for scene in scenes:
        occlusions = [o.id for o in scene.objects if o.occlusion]
        assert scene.truth.dtype == np.bool_
        assert np.array_equal(scene.truth, np.isin(scene.instances, occlusions))
        assert 0.005 < scene.truth.mean() < 0.5


@pytest.mark.parametrize("size", [(320, 180), (501, 333), (960, 540), (1920, 1080)])
def test_arrays_follow_the_size(size: tuple[int, int]) -> None:
    scene = draw_scene(1, size)
    w, h = size
    assert scene.rgb.shape == (h, w, 3)
    assert scene.rgb.dtype == np.uint8
    assert scene.instances.shape == scene.truth.shape == scene.depth_mm.shape == (h, w)
    assert scene.instances.dtype == scene.depth_mm.dtype == np.uint16


def test_geometry_does_not_depend_on_the_size() -> None:
    small, large = draw_scene(5, (480, 270)).truth, draw_scene(5, (960, 540)).truth
    reduced = cv2.resize(large.astype(np.uint8), (480, 270), interpolation=cv2.INTER_NEAREST) > 0
    assert (small & reduced).sum() / (small | reduced).sum() > 0.8


def test_roi_lies_in_the_frame(scenes: list[Scene]) -> None:
    for scene in scenes:
        x, y, w, h = scene.roi_xywh
        assert x >= 0
        assert y >= 0
        assert w > 20
        assert h > 20
        assert x + w <= SMALL[0]
        assert y + h <= SMALL[1]
        torso = [o.id for o in scene.objects if o.kind == "body"]
        body = np.isin(scene.instances, torso)
        assert body[y : y + h, x : x + w].sum() > 0.98 * body.sum()


def test_depth_is_in_range_with_holes(scenes: list[Scene]) -> None:
    for scene in scenes:
        valid = scene.depth_mm[scene.depth_mm > 0]
        assert 700 < valid.min() < valid.max() < 3500
        assert 0 < (scene.depth_mm == 0).mean() < 0.15
        sheet = [o.id for o in scene.objects if o.kind == "sheet"]
        bed = scene.depth_mm[np.isin(scene.instances, sheet) & (scene.depth_mm > 0)]
        assert 1200 < np.median(bed) < 2400


def test_most_scenes_have_cables_and_many_occlusions(scenes: list[Scene]) -> None:
    cables = [any(o.kind == "cable" for o in s.objects) for s in scenes]
    assert sum(cables) >= 8
    counts = [sum(o.occlusion for o in s.objects) for s in scenes]
    assert 9 <= np.median(counts) <= 24


def test_written_files_read_back(scenes: list[Scene], tmp_path: Path) -> None:
    scene = scenes[0]
    write_scene(scene, "a", tmp_path)
    bgr = cv2.imread(str(tmp_path / "images/a.png"))
    assert bgr is not None
    rgb = bgr[..., ::-1]
    assert np.array_equal(rgb, scene.rgb)
    truth = cv2.imread(str(tmp_path / "truth/a.png"), cv2.IMREAD_UNCHANGED)
    assert truth is not None
    assert np.array_equal(truth, scene.truth * np.uint8(255))
    for folder, want in (("instances", scene.instances), ("depth", scene.depth_mm)):
        got = cv2.imread(str(tmp_path / folder / "a.png"), cv2.IMREAD_UNCHANGED)
        assert got is not None
        assert got.dtype == np.uint16
        assert np.array_equal(got, want)
    assert read_objects(tmp_path / "instances/a.json") == (scene.roi_xywh, scene.objects)
    assert not list(tmp_path.rglob("*.tmp"))
