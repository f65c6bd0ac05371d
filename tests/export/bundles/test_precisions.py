"""A bundle gets a lower precision when its masks agree with float32, or nothing is written."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from PIL import Image
from tiny_bundle import write_tiny_bundle
from tiny_two_stage import write_tiny_two_stage

from maskrt.export.bundles import precisions
from maskrt.export.bundles.precisions import export_precisions
from maskrt.export.graph_tools.structure import structure_sha256
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle, open_bundle
from maskrt.runtime.bundle.manifest import SCHEMA, RefineManifest, SossManifest, encode_manifest
from maskrt.runtime.errors import ExportError, InputError
from maskrt.runtime.evaluation.answers import Calibration
from maskrt.runtime.kinds.open import open_pipeline
from maskrt.runtime.pipelines.refine.pipeline import open_refiner


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures with a bright block on a dark ground, and noise."""
    folder, rng = tmp_path_factory.mktemp("ward"), np.random.default_rng(5)
    for index in range(3):
        rgb = rng.integers(20, 90, (60, 80, 3), np.uint8)
        rgb[15:40, 10 + 10 * index : 45 + 10 * index] += 140
        Image.fromarray(rgb).save(folder / f"bed_{index}.png")
    return folder


@pytest.fixture(scope="module")
def lower(tiny_bundle: Path, ward: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The tiny bundle with both precisions, and what was reported."""
    out = tmp_path_factory.mktemp("out") / "lower"
    lines: list[str] = []
    export_precisions(tiny_bundle, out, ("fp16", "int8"), Calibration(str(ward)), report=lines.append)
    return out, lines


def test_what_is_written(lower: tuple[Path, list[str]], tiny_bundle: Path) -> None:
    out, lines = lower
    manifest, before = open_bundle(out).expect(SossManifest), open_bundle(tiny_bundle).expect(SossManifest)
    assert manifest.models == before.models
    assert (manifest.schema, manifest.segmenter, manifest.masks) == (SCHEMA, before.segmenter, before.masks)
    names = {"segmenter.onnx", "encoder.onnx", "decoder.onnx", MANIFEST, "segmenter.int8.onnx"}
    names |= {"segmenter.fp16.onnx", "encoder.fp16.onnx", "decoder.fp16.onnx"}
    assert {path.name for path in out.iterdir()} == names
    assert manifest.precisions["fp16"].float32 == ()
    assert manifest.precisions["int8"].float32 == ("encoder", "decoder")
    for precision in ("fp16", "int8"):
        spec = manifest.precisions[precision]
        assert spec.tolerance == 0.98
        assert set(spec.agreement) == {"soss"}
        found = spec.agreement["soss"]
        assert found.frames == 3
        assert 0.98 <= found.worst_iou <= found.mean_iou <= 1
        assert found.segments_iou is not None
        assert found.segments_iou > 0.9
        for artifact in spec.models.values():
            assert artifact.structure_sha256 == structure_sha256(out / artifact.file)
        assert 0 < spec.models["segmenter"].error.max_rel < 0.05
    assert sum(line.startswith("fp16: soss: mean IoU ") for line in lines) == 1
    assert [line.partition(":")[0] for line in lines if line.startswith("segmenter.")] == [
        "segmenter.fp16.onnx",
        "segmenter.int8.onnx",
    ]


def test_typed_files(lower: tuple[Path, list[str]]) -> None:
    out, _ = lower
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(out / "segmenter.fp16.onnx").graph.initializer}
    assert weights["weight"] == onnx.TensorProto.FLOAT16
    kinds = {node.op_type for node in onnx.load(out / "segmenter.int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_measured_is_what_runs(lower: tuple[Path, list[str]], ward: Path) -> None:
    out, _ = lower
    ious = []
    with open_pipeline(out) as plain, open_pipeline(out, precision="int8") as quantised:
        for file in sorted(ward.iterdir()):
            rgb = np.array(Image.open(file))
            expected, found = plain(rgb).mask, quantised(rgb).mask
            ious.append((expected & found).sum() / (expected | found).sum())
    agreement = open_bundle(out).manifest.precisions["int8"].agreement["soss"]
    assert agreement.mean_iou == pytest.approx(np.mean(ious))
    assert agreement.worst_iou == pytest.approx(min(ious))


def test_one_more_precision_and_one_anew(lower: tuple[Path, list[str]], ward: Path, tmp_path: Path) -> None:
    first = export_precisions(lower[0], tmp_path / "a", ["fp16"], Calibration(str(ward)), keep=["decoder"])
    assert first.manifest.precisions["int8"] == open_bundle(lower[0]).manifest.precisions["int8"]
    assert first.manifest.precisions["fp16"].float32 == ("decoder",)
    assert not (first.path / "decoder.fp16.onnx").exists()
    assert open_bundle(first.path, "fp16").model_path("decoder").name == "decoder.onnx"


def spoilt(source: Path, target: Path) -> None:
    """A segmenter that sees everything as background; other graphs as they are."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if source.name == "segmenter.onnx" and tensor.name == "fill":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([9, -9], np.float32)[:, None, None], "fill"))
    onnx.save(model, target)


def test_what_loses_too_much_is_refused(
    tiny_bundle: Path, ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "convert_fp16", spoilt)
    with pytest.raises(ExportError, match="fp16 loses too much: over 3 frames, soss's mean IoU with fp32 is ") as error:
        export_precisions(tiny_bundle, tmp_path / "out", ["fp16"], Calibration(str(ward)))
    assert "the tolerance 0.98; leave graphs in float32 (--keep segmenter, which is off by" in str(error.value)
    assert not list(tmp_path.iterdir())
    kept = export_precisions(tiny_bundle, tmp_path / "kept", ["fp16"], Calibration(str(ward)), keep=["segmenter"])
    assert kept.manifest.precisions["fp16"].agreement["soss"].mean_iou == 1
    loose = export_precisions(tiny_bundle, tmp_path / "loose", ["fp16"], Calibration(str(ward)), tolerance=0)
    assert loose.manifest.precisions["fp16"].agreement["soss"].worst_iou < 0.98


def test_what_overflows_is_refused(
    tiny_bundle: Path, ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "convert_fp16", lambda source, target: _nan(source, target))
    with pytest.raises(ExportError, match=r"NaN or infinity.*; fp16 is too narrow for it: leave it in .* --keep segm"):
        export_precisions(tiny_bundle, tmp_path / "out", ["fp16"], Calibration(str(ward)))
    assert not list(tmp_path.iterdir())


def _nan(source: Path, target: Path) -> None:
    shutil.copyfile(write_tiny_bundle(target.parent / "nan", np.nan) / source.name, target)


def test_what_cannot_be_converted(
    tiny_bundle: Path, ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(source: Path, target: Path) -> None:
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(precisions, "convert_fp16", fails)
    with pytest.raises(
        ExportError, match=r"cannot be converted to fp16: no such operator; leave it in float32 with --k"
    ):
        export_precisions(tiny_bundle, tmp_path / "out", ["fp16"], Calibration(str(ward)))
    assert not list(tmp_path.iterdir())


def test_pictures_that_cannot_be_used(tiny_bundle: Path, ward: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(ward, tmp_path / "broken"))
    (broken / "bed_1.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    dark = tmp_path / "dark.png"
    Image.new("RGB", (80, 60)).save(dark)
    for images, message in (
        (tmp_path / "empty", "holds no image"),
        (tmp_path / "none", "no such file or folder"),
        (broken, "bed_1: .* is not an image that maskrt reads: .*; repair the picture or remove it"),
        (dark, "soss finds no mask in any of the 1 pictures: take pictures that show what is to be segmented"),
    ):
        with pytest.raises(InputError, match=message):
            export_precisions(tiny_bundle, tmp_path / "out", ["int8"], Calibration(str(images)))
        assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "dark.png", "empty"]


@pytest.mark.parametrize(
    ("names", "keep", "message"),
    [
        (["fp8"], [], "--precision fp8: choose from fp16, int8; fp32 is always in the bundle"),
        ([], [], "choose from fp16, int8"),
        (["int8"], ["segmenter"], "int8 would change no network of .*: give fewer to --keep"),
        (["fp16"], ["teacher"], "--keep teacher: .* has only segmenter, encoder, decoder"),
    ],
)
def test_options(
    tiny_bundle: Path, ward: Path, tmp_path: Path, names: list[str], keep: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        export_precisions(tiny_bundle, tmp_path / "out", names, Calibration(str(ward)), keep=keep)
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_not_overwritten_unasked(tiny_bundle: Path, ward: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(tiny_bundle, tmp_path / "own"))
    with pytest.raises(InputError, match="exists: choose another path"):
        export_precisions(own, own, ["int8"], Calibration(str(ward)))
    found = export_precisions(own, own, ["int8"], Calibration(str(ward)), overwrite=True)
    assert open_bundle(own, "int8").manifest == found.manifest


@pytest.fixture(scope="module")
def rough(ward: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rough")
    for file in ward.iterdir():
        grey = np.array(Image.open(file)).mean(axis=2)
        Image.fromarray(np.where(np.roll(grey, 3) > 120, 255, 0).astype(np.uint8)).save(folder / file.name)
    return folder


def test_a_refiner_alone(sure_refiner_bundle: Path, ward: Path, rough: Path, tmp_path: Path) -> None:
    images = str(ward)
    with pytest.raises(InputError, match="a refiner alone is verified on rough masks: name their folder with --masks"):
        export_precisions(sure_refiner_bundle, tmp_path / "out", ["fp16"], Calibration(images))
    found = export_precisions(
        sure_refiner_bundle, tmp_path / "out", ["fp16", "int8"], Calibration(images, masks=rough), tolerance=0.9
    )
    specs = found.manifest.precisions
    assert set(specs["fp16"].models) == {"refiner_backbone", "refiner_coarse", "refiner_fusion"}
    assert specs["fp16"].float32 == ("refiner_decoder",)
    assert set(specs["int8"].models) == {"refiner_backbone"}
    assert specs["fp16"].agreement["refiner"].mean_iou > 0.98
    assert specs["fp16"].agreement["refiner"].segments_iou is None
    with open_refiner(open_bundle(found.path, "fp16")) as refiner:
        assert refiner(np.zeros((20, 30, 3), np.uint8), np.ones((20, 30), bool)).mask.shape == (20, 30)


def test_soss_with_a_refiner(tiny_bundle: Path, sure_refiner_bundle: Path, ward: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "both"))
    own = open_bundle(tiny_bundle).expect(SossManifest)
    more = open_bundle(sure_refiner_bundle).expect(RefineManifest)
    for entry in more.models.values():
        shutil.copyfile(sure_refiner_bundle / entry.file, folder / entry.file)
    manifest: Any = msgspec.structs.replace(own, models=own.models | more.models, refiner=more.refiner)
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    found: Bundle = export_precisions(folder, tmp_path / "out", ["fp16"], Calibration(str(ward)), tolerance=0.9)
    assert set(found.manifest.precisions["fp16"].agreement) == {"soss", "refiner"}


def test_two_stages(ward: Path, tmp_path: Path) -> None:
    """Both networks, verified through both stages."""
    bundle = write_tiny_two_stage(tmp_path / "stages")
    export_precisions(bundle, tmp_path / "lower", ("fp16",), Calibration(str(ward)))
    spec = open_bundle(tmp_path / "lower").manifest.precisions["fp16"]
    assert set(spec.models) == {"low", "high"}
    assert set(spec.agreement) == {"two_stage"}
    assert spec.agreement["two_stage"].mean_iou >= 0.98
    rgb = np.asarray(Image.open(ward / "bed_0.png"))
    with open_pipeline(tmp_path / "lower", precision="fp16") as half, open_pipeline(bundle) as single:
        found, expected = (pipeline(rgb).probability for pipeline in (half, single))
    assert np.abs(found - expected).max() < 0.02
