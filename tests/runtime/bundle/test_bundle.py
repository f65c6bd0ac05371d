"""A bundle is whole, ours, and of this schema, or it is not opened."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskrt.runtime.bundle.bundle import MANIFEST, entry_of, open_bundle
from maskrt.runtime.bundle.manifest import Artifact, SossManifest, encode_manifest
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.bundle.settings import with_overrides
from maskrt.runtime.bundle.specs import MasksSpec, VotingSpec
from maskrt.runtime.errors import BundleError, InputError


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def edit(bundle: Path) -> Callable[[Callable[[dict], object]], None]:
    """edit(change) applies change to the content of bundle.json."""

    def apply(change: Callable[[dict], object]) -> None:
        manifest = json.loads((bundle / MANIFEST).read_text())
        change(manifest)
        (bundle / MANIFEST).write_bytes(sealed(manifest))

    return apply


def refused(bundle: Path, message: str) -> None:
    """open_bundle refuses it in one line that matches."""
    with pytest.raises(BundleError, match=message) as error:
        open_bundle(bundle)
    assert "\n" not in str(error.value)


def test_whole(bundle: Path) -> None:
    opened = open_bundle(str(bundle))
    assert opened.expect(SossManifest).segmenter.classes == ("background", "occlusion")
    assert opened.model_path("decoder") == bundle / "decoder.onnx"
    assert encode_manifest(opened.manifest) == (bundle / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match="has no teacher; it holds: segmenter, encoder, decoder"):
        opened.model_path("teacher")


def test_missing(tmp_path: Path) -> None:
    refused(tmp_path, r"is not a bundle: it has no bundle\.json; make one with maskrt export")
    refused(tmp_path / "none", "is not a bundle")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"not json"])
def test_not_json(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    refused(bundle, "is not JSON")


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b"{}"])
def test_json_of_another_kind(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    refused(bundle, "export the bundle again")


def test_huge_manifest(bundle: Path) -> None:
    (bundle / MANIFEST).write_bytes(b" " * ((1 << 20) + 1))
    refused(bundle, "larger than 1048576 bytes")


def test_newer_schema(bundle: Path, edit: Callable) -> None:
    edit(lambda manifest: manifest.update(schema=6, something="new"))
    refused(bundle, "has schema 6, this maskrt reads up to 5: update maskrt")


@pytest.mark.parametrize("schema", [1, 2])
def test_older_schemas_know_no_structure(bundle: Path, edit: Callable, schema: int) -> None:
    def older(manifest: dict) -> None:
        manifest["schema"] = schema
        for entry in manifest["models"].values():
            del entry["structure_sha256"]

    assert all(len(entry.structure_sha256) == 64 for entry in open_bundle(bundle).manifest.models.values())
    edit(older)
    assert {entry.structure_sha256 for entry in open_bundle(bundle).manifest.models.values()} == {""}


@pytest.fixture
def with_int8(bundle: Path, edit: Callable) -> Path:
    """The bundle with an int8 segmenter, which is the float32 one."""
    file = bundle / "segmenter.int8.onnx"
    shutil.copyfile(bundle / "segmenter.onnx", file)

    def add(manifest: dict) -> None:
        entry = manifest["models"]["segmenter"]
        artifact = {"file": file.name, "sha256": entry["sha256"], "size_bytes": entry["size_bytes"]}
        lower: dict[str, Any] = {"models": {"segmenter": {**artifact, "error": {"max_abs": 0.1, "max_rel": 0.01}}}}
        lower |= {"float32": ["encoder", "decoder"], "agreement": {}, "tolerance": 0.98}
        manifest.update(schema=2, precisions={"int8": lower})

    edit(add)
    return bundle


def test_precisions(with_int8: Path) -> None:
    assert open_bundle(with_int8).model_path("segmenter").name == "segmenter.onnx"
    lower = open_bundle(with_int8, "int8")
    assert [lower.model_path(role).name for role in lower.manifest.models] == [
        "segmenter.int8.onnx",
        "encoder.onnx",
        "decoder.onnx",
    ]
    assert lower.at("fp32").model_path("segmenter").name == "segmenter.onnx"
    with pytest.raises(BundleError, match=r"has no fp16, it holds: fp32, int8; make it with maskrt export precisions "):
        open_bundle(with_int8, "fp16")
    with pytest.raises(BundleError, match="unknown precision 'fp8'; maskrt knows: fp32, fp16, int8"):
        lower.at("fp8")
    with pytest.raises(BundleError, match="has no teacher"):
        lower.model_path("teacher")


def test_what_a_bundle_says_of_one_file(with_int8: Path) -> None:
    models = open_bundle(with_int8).manifest.models
    (with_int8 / "encoder.onnx").write_bytes(b"altered")  # no matter: another file
    assert entry_of(with_int8 / "decoder.onnx") == models["decoder"]
    lower = entry_of(with_int8 / "segmenter.int8.onnx")
    assert isinstance(lower, Artifact)
    assert lower.error.max_abs == 0.1
    with pytest.raises(BundleError, match=r"names no file teacher\.onnx: copy the whole folder again"):
        entry_of(with_int8 / "teacher.onnx")
    for name in ("encoder.onnx", "segmenter.int8.onnx"):
        (with_int8 / name).write_bytes(b"altered")
        with pytest.raises(BundleError, match=rf"{name}: 7 bytes, the bundle says"):
            entry_of(with_int8 / name)
    (with_int8 / MANIFEST).unlink()
    with pytest.raises(BundleError, match="is not a bundle"):
        entry_of(with_int8 / "decoder.onnx")


def test_files_of_precisions_are_verified_too(with_int8: Path, edit: Callable) -> None:
    file = with_int8 / "segmenter.int8.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(with_int8, r"segmenter\.int8\.onnx: sha256 differs from the bundle's: altered or damaged")
    file.unlink()
    refused(with_int8, r"segmenter\.int8\.onnx \(segmenter in int8\) is missing")
    edit(lambda manifest: manifest["precisions"]["int8"].update(float32=["decoder"]))
    refused(with_int8, "precision int8 does not list every model")


@pytest.mark.parametrize("name", ["../segmenter.onnx", "segmenter.npz", "a/b.onnx"])
def test_plain_names_of_precisions(with_int8: Path, edit: Callable, name: str) -> None:
    edit(lambda manifest: manifest["precisions"]["int8"]["models"]["segmenter"].update(file=name))
    refused(with_int8, r"only plain NAME\.onnx files are opened")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(extra=1), "unknown field `extra`"),
        (lambda m: m["masks"].update(points=1), r"unknown field `points` - at `\$\.masks`"),
        (lambda m: m.pop("sam"), "missing required field `sam`"),
        (
            lambda m: m.update(kind="other"),
            "kind 'other', this maskrt knows soss, refine, two_stage, interactive: update maskrt",
        ),
        (lambda m: m["segmenter"].update(input_hw=[1, 2, 3]), "input_hw"),
        (lambda m: m["voting"].update(target="1"), "target"),
    ],
)
def test_fields(bundle: Path, edit: Callable, change: Callable, message: str) -> None:
    edit(change)
    refused(bundle, message)


@pytest.mark.parametrize(
    "name",
    ["../segmenter.onnx", "/etc/passwd", "a/b.onnx", "..\\a.onnx", ".onnx", "segmenter.onnx\n", "a.pt", "", "a b.onnx"],
)
def test_only_plain_file_names_are_opened(bundle: Path, edit: Callable, name: str) -> None:
    edit(lambda manifest: manifest["models"]["segmenter"].update(file=name))
    refused(bundle, r"only plain NAME\.onnx, NAME\.npz or NAME\.safetensors files are opened")


def test_a_symlink_is_not_followed(bundle: Path) -> None:
    (bundle / "encoder.onnx").rename(bundle.parent / "elsewhere.onnx")
    (bundle / "encoder.onnx").symlink_to(bundle.parent / "elsewhere.onnx")
    refused(bundle, r"encoder\.onnx \(encoder\) is missing: copy the whole folder again")


def test_missing_and_altered_files(bundle: Path) -> None:
    file = bundle / "decoder.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(bundle, "sha256 differs from the bundle's: altered or damaged")
    file.write_bytes(whole[:-1])
    refused(bundle, "bytes, the bundle says")
    file.unlink()
    refused(bundle, "is missing")


def test_overrides() -> None:
    assert with_overrides(MasksSpec(), {"points_per_side": 20}).points_per_side == 20
    assert with_overrides(VotingSpec(), {"vote": "hard"}).vote == "hard"
    assert with_overrides(MasksSpec(), {"pred_iou_thresh": 1}).pred_iou_thresh == 1.0
    for overrides in ({"points": 1}, {"points_per_side": "20"}, {"points_per_side": 2.5}):
        with pytest.raises(InputError, match=r"setting not understood: .*there are: points_per_side"):
            with_overrides(MasksSpec(), overrides)
    with pytest.raises(InputError, match="Invalid enum value 'loud'"):
        with_overrides(VotingSpec(), {"vote": "loud"})
