"""No bit of bundle.json can change unseen, and no number of it can be absurd."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
import pytest

from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.bundle.manifest import MANIFESTS
from maskrt.runtime.bundle.seal import is_sealed, sealed
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.errors import BundleError

KINDS = ("soss", "refine", "two_stage", "interactive")


@pytest.fixture
def bundle(tiny_bundles: dict[str, Path], kind: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundles[kind], tmp_path / kind))


@pytest.mark.parametrize("kind", KINDS)
def test_of_300_flipped_bits_all_are_refused(bundle: Path, rng: np.random.Generator) -> None:
    whole = (bundle / MANIFEST).read_bytes()
    open_bundle(bundle)
    for at in rng.choice(8 * len(whole), 300, replace=False).tolist():
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        (bundle / MANIFEST).write_bytes(data)
        with pytest.raises(BundleError) as error:
            open_bundle(bundle)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["soss"])
def test_every_bit_of_the_beginning_is_refused(bundle: Path) -> None:
    whole = (bundle / MANIFEST).read_bytes()
    for at in range(8 * 160):  # the digest, its name, the kind and the schema
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        (bundle / MANIFEST).write_bytes(data)
        with pytest.raises(BundleError):
            open_bundle(bundle)


@pytest.mark.parametrize("kind", ["two_stage"])
def test_the_digest_cannot_be_taken_off(bundle: Path) -> None:
    content = json.loads((bundle / MANIFEST).read_text())
    for change in ({"schema": 4}, {"digest": "0" * 64}, {"digest": None}):
        (bundle / MANIFEST).write_text(json.dumps(content | change))
        with pytest.raises(BundleError, match="altered or damaged"):
            open_bundle(bundle)
    del content["digest"]
    (bundle / MANIFEST).write_text(json.dumps(content, indent=2))
    with pytest.raises(BundleError, match="not as maskrt wrote it"):
        open_bundle(bundle)
    (bundle / MANIFEST).write_bytes(sealed(content))
    open_bundle(bundle)


def test_a_seal_is_of_the_bytes() -> None:
    data = sealed({"schema": 5, "a": 1})
    assert is_sealed(data)
    assert not is_sealed(data.replace(b"\n", b"\r\n"))
    assert not is_sealed(data + b" ")


@pytest.mark.parametrize("kind", ["two_stage"])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"opset": 17', '"opset": 17, "opset": 17', "it has 'opset' twice"),
        ('"opset": 17', '"opset": NaN', "the number NaN"),
        ('"opset": 17', '"opset": 1e999', "the number 1e999"),
        ('"opset": 17', '"opset": 1' + "0" * 5000, "number of 5001 digits"),
        ('"schema": 5', '"schema": 99', "has schema 99, this maskrt reads up to 5"),
        ('"schema": 5', '"schema": true', "no whole number as its schema"),
        ('"schema": 5', '"schema": "5"', "no whole number as its schema"),
        ('"schema": 5', '"schema": 5.5', "no whole number as its schema"),
    ],
)
def test_what_json_leaves_open_is_refused(bundle: Path, old: str, new: str, message: str) -> None:
    text = (bundle / MANIFEST).read_text()
    assert old in text
    (bundle / MANIFEST).write_text(text.replace(old, new))
    with pytest.raises(BundleError, match=message):
        open_bundle(bundle)


def numbers_of(hint: Any, where: str, metas: tuple[msgspec.Meta, ...] = ()) -> Iterator[tuple[str, Any, Any]]:
    """Every int and float that a type can hold: where it stands, and its least and largest value."""
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        yield from numbers_of(inner, where, (*metas, *(extra for extra in extras if isinstance(extra, msgspec.Meta))))
    elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        for name, field in get_type_hints(hint, include_extras=True).items():
            if name in hint.__struct_fields__:
                yield from numbers_of(field, f"{where}.{name}")
    elif hint in (int, float):
        least = next((b for meta in metas for b in (meta.ge, meta.gt) if b is not None), None)
        largest = next((b for meta in metas for b in (meta.le, meta.lt) if b is not None), None)
        yield where, least, largest
    elif get_origin(hint) is not None and get_origin(hint) is not Union:
        for part in get_args(hint):
            if part is not Ellipsis:
                yield from numbers_of(part, where)
    else:
        for part in get_args(hint):
            yield from numbers_of(part, where)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_every_spec_has_bounds(kind: str) -> None:
    found = [*numbers_of(MANIFESTS[kind], kind)]
    assert len(found) > 10
    assert [where for where, least, largest in found if least is None or largest is None] == []


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("soss", {"points_per_side": 1000}, "<= 256"),
        ("soss", {"points_per_side": 40, "crop_n_layers": 4}, "545600 prompts a picture, over the bound of 100000"),
        ("soss", {"box_nms_thresh": 1e18}, "<= 1"),
        ("soss", {"target": 2}, "voting target 2 is not one of 2 classes"),
        ("soss", {"stability_score_offset": -1}, ">= 0"),
        ("refine", {"tile": 10**9}, "<= 65536"),
        ("two_stage", {"patches": 10**9}, "<= 512"),
        ("interactive", {"learning_rate": 1e9}, "<= 1"),
    ],
)
def test_absurd_settings_are_refused_with_the_bound(
    tiny_bundles: dict[str, Path], kind: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        with_settings(open_bundle(tiny_bundles[kind]), settings)


def test_numbers_of_numpy_are_settings_too(tiny_bundles: dict[str, Path]) -> None:
    settings = {"points_per_side": np.int64(8), "box_nms_thresh": np.float32(0.5)}
    changed: Any = with_settings(open_bundle(tiny_bundles["soss"]), settings).manifest
    assert (changed.masks.points_per_side, changed.masks.box_nms_thresh) == (8, 0.5)


@pytest.mark.parametrize("kind", ["soss"])
@pytest.mark.parametrize("classes", [["one"], ["a", "a"], ["", "b"], ["a" * 201, "b"]])
def test_class_names_are_two_or_more_and_differ(bundle: Path, classes: list[str]) -> None:
    content = json.loads((bundle / MANIFEST).read_text())
    content["segmenter"]["classes"] = classes
    (bundle / MANIFEST).write_bytes(sealed(content))
    with pytest.raises(BundleError):
        open_bundle(bundle)
