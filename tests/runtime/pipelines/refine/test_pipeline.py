"""Refinement as a pipeline: label maps, mask files, SOSS with a refiner, and bundles of either kind."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.bundle.manifest import RefineManifest, SossManifest, encode_manifest
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.bundle.specs import RefinementSpec
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.io.masks import read_labels, read_rough
from maskrt.runtime.kinds.open import open_pipeline
from maskrt.runtime.pipelines.refine.pipeline import (
    RefinePipeline,
    open_refiner,
    refine_labels,
    refiner_of,
    rough_reader,
    sha256_of_masks,
)
from maskrt.runtime.pipelines.refine.refiner import Refiner
from maskrt.runtime.types import Frame, Result


@pytest.fixture(scope="module")
def refiner(refiner_bundle: Path) -> Any:
    with open_refiner(open_bundle(refiner_bundle), threads=1) as opened:
        yield opened


@pytest.fixture
def rgb(rng: np.random.Generator) -> np.ndarray:
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((70, 50), Image.Resampling.BICUBIC))


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((50, 70), np.uint8)
    labels[5:30, 5:40] = 3
    labels[20:45, 30:65] = 7
    return labels


def test_every_pixel_takes_the_class_that_is_surest(refiner: Refiner, rgb: np.ndarray, labels: np.ndarray) -> None:
    three, seven = (refiner(rgb, labels == number).probability for number in (3, 7))
    found, best, timings_ms = refine_labels(refiner, rgb, labels)
    expected = np.where(np.maximum(three, seven) > 0.5, np.where(seven > three, 7, 3), 0)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(best, np.maximum(three, seven))
    assert set(np.unique(found)) == {0, 3, 7}
    assert set(timings_ms) == {"backbone", "fusion", "decode"}
    signed, _, _ = refine_labels(refiner, rgb, labels.astype(np.int64))
    np.testing.assert_array_equal(signed, found)


def test_three_hundred_classes(refiner: Refiner, rng: np.random.Generator) -> None:
    """A class a pixel; a number past 255 needs 16 bits."""
    labels = np.arange(1, 301).reshape(20, 15)
    rgb = rng.integers(0, 256, (20, 15, 3), dtype=np.uint8)
    found, best, _ = refine_labels(_Echo(), rgb, labels)  # type: ignore[arg-type]
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, labels)
    assert (best == np.float32(0.75)).all()
    assert refine_labels(_Echo(), rgb, np.minimum(labels, 255))[0].dtype == np.uint8  # type: ignore[arg-type]
    found, _, _ = refine_labels(refiner, rgb, np.where(labels > 150, 300, 0).astype(np.uint16))
    assert found.dtype == np.uint16
    assert set(np.unique(found)) <= {0, 300}


class _Echo:
    """A refiner that is sure of what comes in, to three quarters."""

    def __call__(self, rgb: np.ndarray, rough: np.ndarray) -> Any:
        from maskrt.runtime.pipelines.refine.refiner import Refined

        return Refined((rough * 0.75).astype(np.float32), 1.0, {"decode": 1.0})


def test_a_map_without_classes(refiner: Refiner, rgb: np.ndarray) -> None:
    found, best, _ = refine_labels(refiner, rgb, np.zeros((50, 70), np.uint8))
    assert found.dtype == np.uint8
    assert not found.any()
    assert (best == 0).all()
    with pytest.raises(InputError, match="its mask has shape"):
        refine_labels(refiner, rgb, np.zeros((50, 71), np.uint8))


@pytest.mark.parametrize(("low", "high"), [(-1, 3), (1, 65536), (-9, -2)])
def test_classes_out_of_range(refiner: Refiner, rgb: np.ndarray, low: int, high: int) -> None:
    labels = np.zeros((50, 70), np.int64)
    labels[0, :2] = low, high
    with pytest.raises(InputError, match=f"the label map has classes {low} to {high}: expected 0 to 65535"):
        refine_labels(refiner, rgb, labels)


def test_masks_and_label_maps_through_the_pipeline(
    refiner_bundle: Path, refiner: Refiner, rgb: np.ndarray, labels: np.ndarray
) -> None:
    maps = {"mask": labels == 3, "soft": (labels == 3).astype(np.float32) * np.float32(0.8), "labels": labels}
    with RefinePipeline(open_bundle(refiner_bundle), maps.__getitem__, threads=1) as pipeline:
        for name in ("mask", "soft"):
            result = pipeline(Frame(rgb, 0, name))
            expected = refiner(rgb, maps[name])
            np.testing.assert_array_equal(result.mask, expected.mask)
            np.testing.assert_array_equal(result.probability, expected.probability)
            np.testing.assert_array_equal(result.label, expected.mask)
            assert (result.roi_xywh, len(result.segment_classes)) == ((0, 0, 70, 50), 0)
        result = pipeline(Frame(rgb, 0, "labels"), (0, 0, 70, 50))
        np.testing.assert_array_equal(result.label, refine_labels(refiner, rgb, labels)[0])
        np.testing.assert_array_equal(result.mask, result.label > 0)
        with pytest.raises(InputError, match="refinement takes whole frames"):
            pipeline(Frame(rgb, 0, "mask"), (0, 0, 70, 49))
        good, bad = pipeline.batch([Frame(rgb, 0, "mask"), None], [None, None])  # type: ignore[list-item]
        assert isinstance(good, Result)
        assert "expected an RGB frame" in str(bad)


def test_mask_files(tmp_path: Path) -> None:
    values = np.array([[0, 128, 255], [51, 0, 1]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rough(tmp_path / "a.png"), values.astype(np.float32) / np.float32(255))
    Image.fromarray(np.array([[0, 65535, 257 * 128]], np.uint16)).save(tmp_path / "deep.png")
    assert read_rough(tmp_path / "deep.png").tolist() == [[0.0, 1.0, np.float32(128) / np.float32(255)]]
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "empty.png")
    assert not read_rough(tmp_path / "empty.png").any()
    for brightest in (1, 3, 127):
        Image.fromarray(np.full((2, 3), brightest, np.uint8)).save(tmp_path / "few.png")
        with pytest.raises(InputError, match=f"the brightest value is {brightest}: .*use --labels for class numbers"):
            read_rough(tmp_path / "few.png")
    with pytest.raises(InputError, match="over the limit of 5e-06 megapixels"):
        read_rough(tmp_path / "a.png", 5)


def test_label_files(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2], [200, 2, 0]], np.uint8)
    palette = Image.fromarray(numbers)
    palette.putpalette([value for index in range(256) for value in (255 - index, index // 2, 7)])
    assert palette.mode == "P"
    palette.save(tmp_path / "palette.png")
    Image.fromarray(numbers).save(tmp_path / "grey.png")
    deep = numbers.astype(np.uint16) * 300
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(numbers > 0).save(tmp_path / "bits.png")
    for name, expected in (("palette", numbers), ("grey", numbers), ("deep", deep), ("bits", numbers > 0)):
        found = read_labels(tmp_path / f"{name}.png")
        assert found.dtype == (np.uint16 if name == "deep" else np.uint8)
        np.testing.assert_array_equal(found, expected, err_msg=name)
    for mode in ("RGB", "RGBA", "LA"):
        Image.new(mode, (3, 2)).save(tmp_path / "colour.png")
        with pytest.raises(InputError, match=rf"is a picture in colour \({mode}\): a label map is grey"):
            read_labels(tmp_path / "colour.png")


def test_a_reader_of_a_folder(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 3, np.uint8)).save(tmp_path / "a.png")
    assert rough_reader(tmp_path, True, 100)("a").tolist() == [[3] * 3] * 2
    with pytest.raises(InputError, match="--labels"):
        rough_reader(tmp_path, False, 100)("a")
    with pytest.raises(InputError, match=r"b\.png: no such file"):
        rough_reader(tmp_path, True, 100)("b")
    with pytest.raises(InputError, match="no such folder; it should hold a"):
        rough_reader(tmp_path / "nowhere", True, 100)


def test_one_sha256_of_all_masks(tmp_path: Path) -> None:
    """Contents and names count; other files do not."""
    seen = [sha256_of_masks(tmp_path)]
    for name, data in (("a", b"1"), ("b", b"2"), ("a", b"2"), ("c", b"1")):
        (tmp_path / f"{name}.png").write_bytes(data)
        seen.append(sha256_of_masks(tmp_path))
    assert len(set(seen)) == 5
    (tmp_path / "notes.txt").write_text("nothing")
    assert sha256_of_masks(tmp_path) == seen[-1]
    (tmp_path / "a.png").rename(tmp_path / "d.png")
    assert sha256_of_masks(tmp_path) != seen[-1]


@pytest.fixture(scope="module")
def soss_bundle(tiny_bundle: Path, refiner_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny SOSS bundle with the tiny refiner beside it."""
    folder = tmp_path_factory.mktemp("soss") / "bundle"
    shutil.copytree(tiny_bundle, folder)
    own, more = open_bundle(tiny_bundle).manifest, open_bundle(refiner_bundle).expect(RefineManifest)
    for entry in more.models.values():
        shutil.copy(refiner_bundle / entry.file, folder)
    both = msgspec.structs.replace(own, models={**own.models, **more.models}, refiner=more.refiner)
    (folder / MANIFEST).write_bytes(encode_manifest(both))
    return folder


@pytest.fixture
def frame(rng: np.random.Generator) -> np.ndarray:
    rgb = rng.integers(20, 60, (90, 160, 3), dtype=np.uint8)
    rgb[20:60, 40:100] += 150
    return rgb


def test_soss_leaves_its_refiner_off(tiny_bundle: Path, soss_bundle: Path, frame: np.ndarray) -> None:
    assert open_bundle(soss_bundle).expect(SossManifest).refinement == RefinementSpec(select="off")
    with open_pipeline(tiny_bundle) as without, open_pipeline(soss_bundle) as off:
        expected, found = without(frame), off(frame)
    np.testing.assert_array_equal(found.label, expected.label)
    np.testing.assert_array_equal(found.probability, expected.probability)
    assert "refine" not in found.timings_ms
    assert expected.label.any()


@pytest.mark.parametrize("roi", [None, (10, 5, 120, 70)])
@pytest.mark.parametrize("select", ["full", "strided:4"])
def test_soss_ends_with_its_refiner(
    soss_bundle: Path, frame: np.ndarray, roi: tuple[int, int, int, int] | None, select: str
) -> None:
    x, y, width, height = roi or (0, 0, 160, 90)
    window = slice(y, y + height), slice(x, x + width)
    with (
        open_pipeline(soss_bundle) as plain,
        open_pipeline(soss_bundle, settings={"select": select, "tile": 64}) as refined,
    ):
        coarse, found = plain(frame, roi), refined(frame, roi)
    with open_refiner(with_settings(open_bundle(soss_bundle), {"select": select})) as refiner:
        crop = np.ascontiguousarray(frame[window])
        label, probability, _ = refine_labels(refiner, crop, coarse.label[window])
    assert found.label.dtype == np.uint8
    np.testing.assert_array_equal(found.label[window], label)
    np.testing.assert_array_equal(found.mask, found.label == 1)
    np.testing.assert_allclose(found.probability[window], probability, rtol=0, atol=1e-6)
    outside = np.ones((90, 160), np.bool_)
    outside[window] = False
    assert not found.label[outside].any()
    assert found.timings_ms["refine"] > 0
    assert (found.label != coarse.label).any()
    assert len(found.segments) == len(coarse.segments)


def test_settings_that_a_bundle_without_refiner_has_not(tiny_bundle: Path, soss_bundle: Path) -> None:
    with pytest.raises(BundleError, match="has no refiner: export one with maskrt export refiner"):
        open_pipeline(tiny_bundle, settings={"select": "full"})
    with pytest.raises(BundleError, match="has no refiner"):
        refiner_of(open_bundle(tiny_bundle))
    with pytest.raises(InputError, match="the stride must be 2 to 64"):
        open_pipeline(soss_bundle, settings={"select": "strided:1"})
    with open_refiner(open_bundle(soss_bundle)) as refiner:  # off after SOSS, but here it was asked for
        assert refiner.settings.select == "full"
    with pytest.raises(BundleError, match=r"there is no setting tiles: .*"):
        open_refiner(with_settings(open_bundle(soss_bundle), {"tiles": 3}))
    with pytest.raises(BundleError, match=r"setting not understood: .*>= 16"):
        open_refiner(with_settings(open_bundle(soss_bundle), {"select": "full", "tile": 15}))


def test_bundles_of_either_kind(refiner_bundle: Path, soss_bundle: Path, tmp_path: Path) -> None:
    refine, soss = open_bundle(refiner_bundle), open_bundle(soss_bundle)
    assert isinstance(refine.manifest, RefineManifest)
    assert isinstance(soss.manifest, SossManifest)
    assert b'"kind": "refine"' in (refiner_bundle / MANIFEST).read_bytes()
    assert refine.manifest.refiner == soss.manifest.refiner == refiner_of(refine)[0]
    assert soss.expect(SossManifest) is soss.manifest
    with pytest.raises(
        BundleError, match="of kind refine and holds a refiner alone: use it with maskrt refine; this needs a segmenter"
    ):
        refine.expect(SossManifest)
    with pytest.raises(BundleError, match="holds a refiner alone"):
        open_pipeline(refiner_bundle)
    text = (refiner_bundle / MANIFEST).read_text()
    for old, new in (
        ('"kind": "refine"', '"kind": "sharpen"'),
        ('"halo": 24', '"halo": 20'),
        ('"padding": 32', '"padding": -1'),
        ('"tile": 384', '"tile": 8'),
        ('"select": "full"', '"selects": "full"'),
    ):
        assert old in text
        (tmp_path / MANIFEST).write_bytes(sealed(json.loads(text.replace(old, new))))
        with pytest.raises(BundleError, match=r"export the bundle again|kind 'sharpen', .*: update maskrt"):
            open_bundle(tmp_path)
