"""The store keeps COCO's form as pycocotools reads it, label pictures, and nothing half written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from maskrt.runtime.annotate import store as store_module
from maskrt.runtime.annotate.coco import check_classes
from maskrt.runtime.annotate.pictures import Opened, Picture
from maskrt.runtime.annotate.store import Store, label_picture
from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.io.masks import read_labels
from maskrt.runtime.rle import encode_rle

Draw = Callable[[], NDArray[np.bool_]]


def painted(masks: list[NDArray[np.bool_]]) -> NDArray[np.int64]:
    label = np.zeros(masks[0].shape, np.int64)
    for number, mask in enumerate(masks, 1):
        label[mask] = number
    return label


def named(opened: Opened, name: str) -> Opened:
    return Opened(Picture(Path(name), name), opened.rgb, f"sha256 of {name}")


def test_coco_and_label_picture(store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    masks = [draw() for _ in range(5)]
    for number, mask in enumerate(masks):
        store.add(opened, ("blanket", "mattress")[number % 2], mask, [(1, 2, 1), (3, 4, 0)][: number % 3], None)
    coco = COCO(out / "annotations.json")
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["file_name"], image["width"], image["height"]) == ("bed_1.png", 80, 60)
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["mattress", "blanket"]
    for number, (mask, found) in enumerate(zip(masks, coco.loadAnns(coco.getAnnIds()), strict=True)):
        np.testing.assert_array_equal(coco.annToMask(found), mask)
        rows, columns = np.nonzero(mask)
        x, y, width, height = found["bbox"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
        assert found["area"] == mask.sum()
        assert len(found["clicks"]) == number % 3
        assert found["category_id"] == (2, 1)[number % 2]
    np.testing.assert_array_equal(read_labels(out / "masks/bed_1.png"), painted(masks))
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == [
        "annotations.json",
        "masks",
        "masks/bed_1.png",
    ]


@pytest.mark.parametrize(("count", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_label_picture(count: int, dtype: type, rng: np.random.Generator) -> None:
    masks = [rng.random((9, 11)) > 0.7 for _ in range(count - 1)] + [np.ones((9, 11), np.bool_)]
    masks[-1][4, 5] = False
    label = label_picture([encode_rle(mask) for mask in masks])
    assert label.dtype == dtype
    np.testing.assert_array_equal(label, painted(masks))


def test_deleted_objects_leave_no_gap(store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    masks = [draw() for _ in range(3)]
    ids = [store.add(opened, "mattress", mask, [], None).id for mask in masks]
    store.delete(ids[1])
    np.testing.assert_array_equal(read_labels(out / "masks/bed_1.png"), painted([masks[0], masks[2]]))
    again = store.add(opened, "mattress", masks[1], [], None)
    assert again.id not in ids
    for found in (ids[0], ids[2], again.id):
        store.delete(found)
    assert not (out / "masks/bed_1.png").exists()
    assert store.annotated == frozenset()
    assert json.loads((out / "annotations.json").read_text())["images"] == []
    with pytest.raises(InputError, match="deleted already"):
        store.delete(ids[0])


def test_equal_stems_get_files_of_their_own(store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    names = ["a/bed.png", "b/bed.png", "b/BED.jpg", "b/bed_2.png"]
    masks = [draw() for _ in names]
    for name, mask in zip(names, masks, strict=True):
        store.add(named(opened, name), "mattress", mask, [], None)
    files = {
        image["file_name"]: image["mask_file"] for image in json.loads((out / "annotations.json").read_text())["images"]
    }
    assert list(files.values()) == ["bed.png", "bed_2.png", "BED_3.png", "bed_2_2.png"]
    for name, mask in zip(names, masks, strict=True):
        np.testing.assert_array_equal(read_labels(out / "masks" / files[name]), mask)
    # The names stay, whatever is opened first the next time.
    again = Store(out, ["mattress"])
    again.add(named(opened, "b/bed.png"), "mattress", masks[0], [], None)
    np.testing.assert_array_equal(read_labels(out / "masks/bed_2.png"), painted([masks[1], masks[0]]))


def test_long_names_are_cut_to_what_file_systems_take(store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    stems = ["a" * 251, "a" * 250 + "ä", "ä" * 126, "b" * 250]
    for stem in (*stems, *stems):
        store.add(named(opened, f"{len(store.annotated)}/{stem}.png"), "mattress", draw(), [], None)
    first = ["a" * 251, "a" * 250, "ä" * 125, "b" * 250]
    second = ["a" * 249 + "_2", "a" * 249 + "_3", "ä" * 124 + "_2", "b" * 249 + "_2"]
    files = [image["mask_file"] for image in json.loads((out / "annotations.json").read_text())["images"]]
    assert files == [f"{stem}.png" for stem in (*first, *second)]
    assert sorted(file.name for file in (out / "masks").iterdir()) == sorted(files)


def test_a_label_picture_holds_no_more(
    store: Store, opened: Opened, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MOST_OBJECTS", 2)
    for _ in range(2):
        store.add(opened, "mattress", draw(), [], None)
    with pytest.raises(InputError, match=r"bed_1\.png has 2 objects: a label picture can hold no more"):
        store.add(opened, "mattress", draw(), [], None)
    assert len(store.annotations) == 2


def test_an_earlier_run_is_gone_on_with(store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    store.add(opened, "blanket", draw(), [(1, 1, 1)] * 20, (0, 0, 5, 5))
    store.give_up()
    before = (out / "annotations.json").read_bytes()
    again = Store(out, ["blanket"])
    assert (out / "annotations.json").read_bytes() == before
    assert again.classes == ("mattress", "blanket")
    assert again.annotations == store.annotations
    assert again.objects_of("bed_1.png")[0].box == (0, 0, 5, 5)
    assert again.failures == 2
    more = Store(out, ["tube", "blanket", "tube"])
    assert more.classes == ("mattress", "blanket", "tube")
    assert more.class_of(more.add(opened, "tube", draw(), [], None)) == "tube"


def test_another_picture_of_the_same_name(store: Store, opened: Opened, draw: Draw) -> None:
    store.check(opened)
    store.add(opened, "mattress", draw(), [], None)
    store.check(opened)
    with pytest.raises(InputError, match=r"is not the picture that .* has under this name"):
        store.check(Opened(opened.picture, opened.rgb, "0" * 64))


def test_another_program_is_not_overwritten(store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    other = Store(out, ["mattress"])
    other.add(opened, "mattress", draw(), [], None)
    before = (out / "annotations.json").read_bytes()
    with pytest.raises(MaskrtError, match="changed by another program"):
        store.add(opened, "mattress", draw(), [], None)
    assert (out / "annotations.json").read_bytes() == before
    assert store.annotations == ()


def test_a_full_disk_changes_nothing(
    store: Store, opened: Opened, draw: Draw, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = store.add(opened, "mattress", draw(), [], None)
    files = {path: path.read_bytes() for path in out.rglob("*.*")}

    def full(files: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "write_files", full)
    for change in (
        lambda: store.add(opened, "mattress", draw(), [], None),
        lambda: store.delete(kept.id),
        store.give_up,
    ):
        with pytest.raises(MaskrtError, match="No space left"):
            change()
    assert store.annotations == (kept,)
    assert store.failures == 0
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == files


def test_folders_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        Store(tmp_path / "file", ["a"])
    with pytest.raises(InputError, match=r"holds no annotations\.json"):
        Store(tmp_path, ["a"])


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        coco = json.loads(text)
        change(coco)
        return json.dumps(coco)

    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda text: "\ud800", "is damaged"),
        (lambda text: "[]", "Expected `object`"),
        (damaged(lambda c: c["annotations"][0].update(image_id=9)), "does not exist"),
        (damaged(lambda c: c["annotations"][0].update(category_id=9)), "does not exist"),
        (damaged(lambda c: c["annotations"].append(c["annotations"][0])), "one id"),
        (damaged(lambda c: c["annotations"][0]["segmentation"]["counts"].append(1)), "add up"),
        (damaged(lambda c: c["annotations"][0].update(area=1)), "another area"),
        (damaged(lambda c: c["images"][0].update(width=81)), "size"),
        (damaged(lambda c: c["annotations"][0]["segmentation"]["counts"].append(10**30)), "add up"),
        (damaged(lambda c: c["annotations"][0]["segmentation"].update(counts=[-1, 4801])), "add up"),
        (damaged(lambda c: c["images"][0].update(width=10**6, height=10**6)), "has the size 1000000 x 1000000"),
        (damaged(lambda c: c["images"][0].update(width=0)), "has the size 0 x 60"),
        (lambda text: text.replace('"given_up":0', '"given_up":' + "9" * 5000), "out of range"),
        (lambda text: "[" * 100_000, "is damaged"),
        (damaged(lambda c: c["images"][0].update(mask_file="../../x.png")), "not the name of a PNG"),
        (damaged(lambda c: c["categories"][0].update(name="../x")), "name a file"),
        (damaged(lambda c: c["images"].append({**c["images"][0], "id": 2})), "one file_name"),
    ],
)
def test_damaged_annotations(
    change: Callable[[str], str], said: str, store: Store, opened: Opened, draw: Draw, out: Path
) -> None:
    store.add(opened, "mattress", draw() | (np.arange(80) == 3), [], None)
    path = out / "annotations.json"
    path.write_bytes(change(path.read_text()).encode("utf-8", "surrogatepass"))
    before = path.read_bytes()
    with pytest.raises(InputError, match=said) as failure:
        Store(out, ["mattress"])
    assert "choose another --out" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert path.read_bytes() == before


def test_names_of_classes() -> None:
    check_classes(["side rail", "Decke", "пеленка", "a" * 60])
    for names in ([], [""], [" "], ["base"], ["a/b"], ["..\\x"], [".hidden"], ["a\n"], ["a" * 61], ["C:"]):
        with pytest.raises(InputError):
            check_classes(names)


def test_leftovers_of_a_killed_process_are_removed(store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    store.add(opened, "mattress", draw(), [], None)
    (out / "masks/.maskrt-1-aaaa.tmp").write_text("half")
    Store(out, ["mattress"])
    assert [path.name for path in (out / "masks").iterdir()] == ["bed_1.png"]
    assert Image.open(out / "masks/bed_1.png").size == (80, 60)
