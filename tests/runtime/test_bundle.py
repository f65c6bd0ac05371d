"""A bundle is whole, ours, and of this schema, or it is not opened."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from maskrt.runtime.bundle import MANIFEST, MasksSpec, VotingSpec, encode_manifest, open_bundle, with_overrides
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
        (bundle / MANIFEST).write_text(json.dumps(manifest))

    return apply


def refused(bundle: Path, message: str) -> None:
    """open_bundle refuses it in one line that matches."""
    with pytest.raises(BundleError, match=message) as error:
        open_bundle(bundle)
    assert "\n" not in str(error.value)


def test_whole(bundle: Path) -> None:
    opened = open_bundle(str(bundle))
    assert opened.manifest.segmenter.classes == ("background", "occlusion")
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
    refused(bundle, "not written by maskrt")


def test_newer_schema(bundle: Path, edit: Callable) -> None:
    edit(lambda manifest: manifest.update(schema=2, something="new"))
    refused(bundle, "has schema 2, this maskrt reads up to 1: update maskrt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(extra=1), "unknown field `extra`"),
        (lambda m: m["masks"].update(points=1), r"unknown field `points` - at `\$\.masks`"),
        (lambda m: m.pop("sam"), "missing required field `sam`"),
        (lambda m: m.update(kind="other"), "Invalid value 'other'"),
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
    refused(bundle, r"only plain NAME\.onnx or NAME\.npz files are opened")


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
        with pytest.raises(InputError, match=r"option not understood: .*known: points_per_side"):
            with_overrides(MasksSpec(), overrides)
    with pytest.raises(InputError, match="Invalid enum value 'loud'"):
        with_overrides(VotingSpec(), {"vote": "loud"})
