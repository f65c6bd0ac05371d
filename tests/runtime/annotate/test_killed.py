"""A process that is killed between any two of its operations on files: what it confirmed is there, and all fits."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from maskrt.runtime.annotate.coco import read_coco
from maskrt.runtime.annotate.pictures import Opened, Picture
from maskrt.runtime.annotate.store import Store, label_picture
from maskrt.runtime.io.masks import read_labels

Draw = Callable[[], NDArray[np.bool_]]
OPERATIONS = ("open", "fsync", "replace", "rename", "unlink", "mkdir", "write", "close")
DONE, KILLED = 0, 9

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def killed_at(count: int, work: Callable[[], object]) -> bool:
    """Work in a process that is killed before its operation number `count`; return whether it got that far."""
    child = os.fork()
    if child == 0:
        left = count

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def instead(*given: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os._exit(KILLED)
                return real(*given, **named)

            return instead

        for name in OPERATIONS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(DONE)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == KILLED


def check(out: Path) -> list[int]:
    """Open the folder again; return the ids of its objects, which the label pictures then show, and nothing else."""
    store = Store(out, ["mattress"])
    coco = read_coco(out / "annotations.json")
    for image in coco.images:
        objects = [found.segmentation for found in coco.annotations if found.image_id == image.id]
        np.testing.assert_array_equal(read_labels(out / "masks" / image.mask_file), label_picture(objects))
    files = {file.name for file in (out / "masks").iterdir()} if (out / "masks").exists() else set()
    assert files == {image.mask_file for image in coco.images}
    assert store.unknown == ()
    assert Store(out, ["mattress"]).made_again == ()
    return [found.id for found in store.annotations]


CHANGES: dict[str, Callable[[Store, Opened, NDArray[np.bool_]], object]] = {
    "first of a picture": lambda store, opened, mask: store.add(opened, "mattress", mask, [], None),
    "one more": lambda store, opened, mask: store.add(opened, "mattress", mask, [], None),
    "delete one": lambda store, opened, mask: store.delete(store.annotations[0].id),
    "delete the last": lambda store, opened, mask: store.delete(store.annotations[0].id),
    "give up": lambda store, opened, mask: store.give_up(),
}
BEFORE = {"first of a picture": 0, "one more": 1, "delete one": 2, "delete the last": 1, "give up": 1}


@pytest.mark.parametrize("name", CHANGES)
def test_killed_anywhere(name: str, opened: Opened, draw: Draw, tmp_path: Path) -> None:
    kept = {"first of a picture": 1, "one more": 1, "delete one": -1, "delete the last": -1, "give up": 0}[name]
    masks = [draw() for _ in range(3)]
    outcomes, count, got_there = set(), 0, True
    while got_there:
        count += 1
        out = tmp_path / f"{count}"
        store = Store(out, ["mattress"])
        for mask in masks[: BEFORE[name]]:
            store.add(opened, "mattress", mask, [], None)
        before = [found.id for found in store.annotations]
        got_there = killed_at(count, lambda store=store: CHANGES[name](store, opened, masks[2]))  # type: ignore[misc]
        after = check(out)
        assert len(after) in (len(before), len(before) + kept)
        assert len(set(before) & set(after)) >= len(before) + min(kept, 0)
        outcomes.add(len(after) - len(before))
        if not got_there:  # it was done, and confirmed
            assert len(after) == len(before) + kept
    assert count > 3
    assert outcomes == {0, kept}


def test_killed_while_it_draws_again(opened: Opened, draw: Draw, tmp_path: Path) -> None:
    masks, count, got_there = [draw(), draw()], 0, True
    while got_there:
        count += 1
        out = tmp_path / f"{count}"
        store = Store(out, ["mattress"])
        for mask in masks:
            store.add(opened, "mattress", mask, [], None)
        (out / "masks/bed_1.png").write_bytes(b"half")
        got_there = killed_at(count, lambda out=out: Store(out, ["mattress"]))  # type: ignore[misc]
        assert len(check(out)) == 2
    assert count > 3


@pytest.mark.parametrize("drift", ["missing", "older", "damaged", "empty"])
def test_label_pictures_are_drawn_again(drift: str, store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    file, masks = out / "masks/bed_1.png", [draw(), draw()]
    store.add(opened, "mattress", masks[0], [], None)
    older = file.read_bytes()
    store.add(opened, "mattress", masks[1], [], None)
    right, said = file.read_bytes(), (out / "annotations.json").read_bytes()
    if drift == "missing":
        file.unlink()
    else:
        file.write_bytes({"older": older, "damaged": right[:-20], "empty": b""}[drift])
    assert Store(out, ["mattress"]).made_again == ("bed_1.png",)
    assert file.read_bytes() == right
    assert (out / "annotations.json").read_bytes() == said


def test_folders_of_older_versions(store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    store.add(opened, "mattress", draw(), [], None)
    path, picture = out / "annotations.json", (out / "masks/bed_1.png").read_bytes()
    now = path.read_text()
    digest = read_coco(path).images[0].mask_sha256
    path.write_text(now.replace(f',"mask_sha256":"{digest}"', ""))
    assert path.read_text() != now
    assert Store(out, ["mattress"]).made_again == ()
    assert path.read_text() == now  # it is known from now on
    path.write_text(now.replace(f',"mask_sha256":"{digest}"', ""))
    (out / "masks/bed_1.png").write_bytes(b"other")
    assert Store(out, ["mattress"]).made_again == ("bed_1.png",)
    assert (out / "masks/bed_1.png").read_bytes() == picture


def test_pictures_that_annotations_do_not_know_stay(store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    store.add(opened, "mattress", draw(), [], None)
    (out / "masks/mine.png").write_bytes(b"mine")
    again = Store(out, ["mattress"])
    assert (again.unknown, again.made_again) == (("mine.png",), ())
    again.add(Opened(Picture(Path("mine.png"), "mine.png"), opened.rgb, "sha256"), "mattress", draw(), [], None)
    assert (out / "masks/mine.png").read_bytes() == b"mine"
    assert (out / "masks/mine_2.png").is_file()


def test_a_picture_without_objects_is_dropped(store: Store, opened: Opened, draw: Draw, out: Path) -> None:
    store.add(opened, "mattress", draw(), [], None)
    coco = read_coco(out / "annotations.json")
    (out / "annotations.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(coco, annotations=())))
    again = Store(out, ["mattress"])
    assert (again.annotated, again.unknown) == (frozenset(), ("bed_1.png",))
    assert read_coco(out / "annotations.json").images == ()
