"""A bundle appears at its place whole and verified, or nothing does."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

import onnx
from onnx import TensorProto, helper, numpy_helper

from maskrt.export.architectures.sam import SamConfig
from maskrt.export.bundles import sams, soss
from maskrt.export.bundles.entries import model_entry
from maskrt.export.bundles.folder import whole_folder
from maskrt.export.bundles.onnx_answer import OnnxOptions
from maskrt.export.bundles.segmenters import SEGMENTERS, copy_onnx
from maskrt.export.bundles.soss import DECODERS, export_soss
from maskrt.export.graph_tools import graph
from maskrt.export.graph_tools.fitness import findings
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle, open_bundle
from maskrt.runtime.bundle.manifest import ModelEntry, SossManifest, encode_manifest
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.bundle.specs import MasksSpec, VotingSpec
from maskrt.runtime.engine_build.builder import REFITTABLE, BuildSettings, EngineBuilder
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import BundleError, CheckpointError, ExportError, InputError
from maskrt.runtime.kinds.open import open_pipeline
from maskrt.runtime.pipelines.soss.segmenter import Segmenter
from maskrt.runtime.sam.mask_decoder import SPLIT_DECODER, SplitDecoder

pytestmark = pytest.mark.export

HW = (64, 96)


@pytest.fixture(scope="module")
def segmenter(mobilenet_file: Path) -> str:
    return f"deeplabv3plus_mobilenet_v2:{mobilenet_file}"


@pytest.fixture(scope="module")
def exported(segmenter: str, sam_spec: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, list[str]]:
    lines: list[str] = []
    bundle = export_soss(
        segmenter,
        sam_spec,
        tmp_path_factory.mktemp("out") / "deep" / "bundle",
        input_hw=HW,
        classes=("background", "occlusion"),
        masks=MasksSpec(points_per_side=4),
        voting=VotingSpec(vote="hard"),
        note="tiny",
        report=lines.append,
    )
    return bundle, lines


def test_every_graph_becomes_an_engine(
    tensorrt_machine: Any, exported: tuple[Bundle, list[str]], tmp_path: Path, rng: np.random.Generator
) -> None:
    """Each has a profile that holds what the pipeline asks for; the decoder in three graphs, from several threads."""
    bundle = open_bundle(shutil.copytree(exported[0].path, tmp_path / "bundle"))
    builder = EngineBuilder(bundle, BuildSettings())
    assert set(builder.roles) == {"segmenter", *sams.WRITERS}
    for role in builder.roles:
        assert builder.build(role, lambda *_: None).how == "built"
    options = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0, "uncovered": "segmenter"}
    with (
        open_pipeline(bundle.path, threads=2, settings=options) as cpu,
        open_pipeline(bundle.path, "tensorrt", threads=2, settings=options) as tensorrt,
    ):
        for size_hw in ((60, 80), (90, 33)):
            rgb = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
            ours, theirs = tensorrt(rgb), cpu(rgb)
            assert len(ours.segments) == len(theirs.segments) > 3
            assert (ours.label != theirs.label).mean() < 0.001


def _trained(bundle: Path, rng: np.random.Generator) -> Path:
    """Change the weights of the decoder's graphs, as training does, and the manifest with them."""
    manifest = open_bundle(bundle).manifest
    entries = dict(manifest.models)
    for role in DECODERS:
        file = bundle / entries[role].file
        model = onnx.load(file)
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > 1:
                value = numpy_helper.to_array(tensor)
                noisy = value * (1 + 0.01 * rng.standard_normal(value.shape))
                tensor.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), tensor.name))
        onnx.save(model, file)
        entries[role] = model_entry(file, "sam", file, None)
        assert entries[role].sha256 != manifest.models[role].sha256
    (bundle / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(manifest, models=entries)))
    return bundle


def _masks(bundle: Path, provider: str) -> np.ndarray:
    """The masks that the decoder in three graphs draws for a random embedding and four prompts."""
    opened, rng = open_bundle(bundle), np.random.default_rng(3)
    with ExitStack() as stack:
        sessions = [stack.enter_context(open_session(opened.model_path(role), provider)) for role in SPLIT_DECODER]
        embedding = rng.standard_normal(sessions[0].inputs["image_embeddings"][1], np.float32)
        coords, labels = rng.uniform(0, 128, (4, 2, 2)).astype(np.float32), np.ones((4, 2), np.float32)
        return soss._decode(SplitDecoder(*sessions, opened.expect(SossManifest).sam), embedding, coords, labels)[1]


def test_a_trained_decoder_takes_the_engines_that_are_there(
    tensorrt_machine: Any, exported: tuple[Bundle, list[str]], tmp_path: Path, rng: np.random.Generator
) -> None:
    older, newer = (open_bundle(shutil.copytree(exported[0].path, tmp_path / name)) for name in ("older", "newer"))
    newer = open_bundle(_trained(newer.path, rng))
    for bundle, refit_from in ((older, None), (newer, older)):
        builder = EngineBuilder(bundle, BuildSettings(), refit_from=refit_from)
        how = {role: builder.build(role, lambda *_: None).how for role in builder.roles}
    assert how == {role: "refitted" if role in REFITTABLE else "built" for role in how}
    found = [(_masks(bundle.path, "tensorrt"), _masks(bundle.path, "cpu")) for bundle in (older, newer)]
    scale = np.abs(found[0][1]).max()
    assert all(np.abs(ours - theirs).max() < 1e-3 * scale for ours, theirs in found)
    assert np.abs(found[0][1] - found[1][1]).max() > 1e-2 * scale


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A segmenter that costs no export: a 1x1 convolution to two classes, at any size."""
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    graph_ = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "quick",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w_"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list("abcd"))],
        [weight],
    )
    file = tmp_path_factory.mktemp("quick") / "quick.onnx"
    onnx.save(helper.make_model(graph_, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return f"onnx:{file}"


@pytest.fixture
def quick_sam(exported: tuple[Bundle, list[str]], tiny_config: SamConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SAM that `exported` has already, instead of another export of it."""

    def copied(folder: Path, spec: str, report: graph.Report) -> tuple[dict[str, ModelEntry], SamConfig]:
        models = exported[0].manifest.models
        for role in sams.WRITERS:
            shutil.copy(exported[0].model_path(role), folder)
        return {role: models[role] for role in sams.WRITERS}, tiny_config

    monkeypatch.setattr(soss, "_export_sam", copied)
    monkeypatch.setattr(soss, "read_sam", lambda _: None)


@pytest.fixture
def fails(quick: str, sam_spec: str, tmp_path: Path) -> Callable[..., None]:
    """fails(error, message, ...) exports with changed arguments and expects the error, and that nothing is left."""

    def check(error: type[Exception], message: str, **changed: Any) -> None:
        arguments: dict[str, Any] = {
            "segmenter": quick,
            "sam": sam_spec,
            "out": tmp_path / "bundle",
            "input_hw": HW,
        } | changed
        with pytest.raises(error, match=message):
            export_soss(**arguments)
        assert not list(tmp_path.iterdir())

    return check


def test_bundle(exported: tuple[Bundle, list[str]], mobilenet_file: Path) -> None:
    bundle, lines = exported
    manifest = open_bundle(bundle.path).expect(SossManifest)
    assert manifest == bundle.manifest
    assert sorted(file.name for file in bundle.path.iterdir()) == [
        "bundle.json",
        "decoder.onnx",
        "encoder.onnx",
        "image_side.onnx",
        "segmenter.onnx",
        "token_side.onnx",
        "upscale.onnx",
    ]
    assert not [file for file in bundle.path.parent.iterdir() if file != bundle.path]
    assert manifest.segmenter.input_hw == HW
    assert manifest.segmenter.classes == ("background", "occlusion")
    assert (manifest.sam.image_size, manifest.sam.low_res_hw) == (128, (32, 32))
    assert (manifest.masks.points_per_side, manifest.voting.vote, manifest.note) == (4, "hard", "tiny")
    assert manifest.models["segmenter"].checkpoint == f"deeplabv3plus_mobilenet_v2:{mobilenet_file.name}"
    assert all(entry.parity and entry.parity.max_rel < 2e-5 for entry in manifest.models.values())
    assert len(lines) == 8
    assert lines[-2] == "TensorRT: nothing found in the graphs that it would refuse"
    assert {role: findings(bundle.model_path(role)) for role in manifest.models} == dict.fromkeys(manifest.models, ())
    assert str(mobilenet_file.parent) not in (bundle.path / MANIFEST).read_text()


def test_same_bytes_again(exported: tuple[Bundle, list[str]], segmenter: str, sam_spec: str, tmp_path: Path) -> None:
    again = export_soss(segmenter, sam_spec, tmp_path / "bundle", input_hw=HW).expect(SossManifest)
    first = exported[0].manifest.models
    assert {role: entry.sha256 for role, entry in again.models.items()} == {
        r: entry.sha256 for r, entry in first.items()
    }
    assert again.segmenter.classes == ("background", "class_1")


@pytest.mark.usefixtures("quick_sam")
def test_what_tensorrt_would_refuse_is_kept(tmp_path: Path) -> None:
    """A segmenter given as ONNX is the one graph that maskrt has not made itself."""
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    sizes = numpy_helper.from_array(np.array([1, 2, *HW]), "sizes")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["s"]),
        helper.make_node("Resize", ["s", "", "", "sizes"], ["y"], name="up", mode="cubic"),
    ]
    ports = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, c, *HW]) for name, c in (("x", 3), ("y", 2)))
    graph_ = helper.make_graph(nodes, "cubic", *([port] for port in ports), [weight, sizes])
    file = tmp_path / "cubic.onnx"
    onnx.save(helper.make_model(graph_, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    lines: list[str] = []
    bundle = export_soss(f"onnx:{file}", "vit_b:none", tmp_path / "bundle", input_hw=HW, report=lines.append)
    (found,) = open_bundle(bundle.path).manifest.models["segmenter"].tensorrt
    assert found == "Resize with mode cubic: TensorRT takes nearest, linear (up)"
    assert lines[-2] == f"segmenter.onnx: TensorRT would refuse: {found}"


@pytest.mark.usefixtures("quick_sam")
def test_one_map_of_probabilities_of_a_fixed_size(tmp_path: Path, rng: np.random.Generator) -> None:
    """It is one class's sigmoid, on pictures of its own normalisation; its size is that of the bundle."""
    weight = numpy_helper.from_array(np.full((1, 3, 1, 1), 0.5, np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Sigmoid", ["y"], ["p"])]
    ports = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, c, 40, 56]) for name, c in (("x", 3), ("p", 1)))
    graph_ = helper.make_graph(nodes, "binary", *([port] for port in ports), [weight])
    onnx.save(helper.make_model(graph_, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "b.onnx")
    bundle = export_soss(
        f"onnx:{tmp_path / 'b.onnx'}",
        "vit_b:none",
        tmp_path / "bundle",
        mean=(128.0,) * 3,
        std=(256.0,) * 3,
        scale=255,
        classes=("wound",),
    )
    segmenter = bundle.expect(SossManifest).segmenter
    assert (segmenter.input_hw, segmenter.classes) == ((40, 56), ("background", "wound"))
    rgb = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    with open_session(bundle.model_path("segmenter")) as session:
        (found,) = Segmenter(session, segmenter)([rgb])
    expected = 1 / (1 + np.exp(-((rgb.astype(np.float64) - 128) / 256).sum(axis=2) / 2))
    assert np.abs(found[1] - expected).max() < 1e-5
    manifest = json.loads((bundle.path / MANIFEST).read_text())
    manifest["segmenter"]["classes"] = ["wound"]
    (bundle.path / MANIFEST).write_bytes(sealed(manifest))
    with pytest.raises(BundleError, match="1 classes: expected 2 to 256"):
        open_bundle(bundle.path)


@pytest.mark.usefixtures("quick_sam")
def test_overwriting(quick: str, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    export_soss(quick, "vit_b:none", out, input_hw=HW)
    with pytest.raises(InputError, match="exists: choose another path, or use --overwrite"):
        export_soss(quick, "vit_b:none", out, input_hw=HW)
    replaced = export_soss(quick, "vit_b:none", out, input_hw=(32, 33), overwrite=True)
    assert replaced.path == out
    assert open_bundle(out).expect(SossManifest).segmenter.input_hw == (32, 33)
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_refusals(fails: Callable[..., None], segmenter: str, sam_spec: str) -> None:
    fails(InputError, "unknown segmenter kind 'unet'", segmenter="unet:a.pth")
    fails(InputError, r"'a\.pth' is not KIND:FILE", segmenter="a.pth")
    fails(CheckpointError, "no such file", segmenter="deeplabv3plus_resnet50:/nowhere/a.pth")
    fails(InputError, "multiples of 16", segmenter=segmenter, input_hw=(60, 60))
    fails(InputError, r"std \(0\.0, 1\.0, 1\.0\): give numbers above 0", std=(0.0, 1.0, 1.0))
    fails(InputError, r"3 class names given \(a, b, c\); the segmenter has 2 classes", classes=("a", "b", "c"))
    fails(InputError, "voting target 2 is not one of 2 classes", voting=VotingSpec(target=2))
    fails(InputError, "unknown SAM kind 'vit_x'", sam="vit_x:a.pth")
    fails(InputError, r"mean \(128\.0, .* is above 1.*--scale 255", mean=(128.0, 128.0, 128.0))
    fails(InputError, "leave them out for deeplabv3plus", segmenter=segmenter, onnx=OnnxOptions(bgr=True))
    fails(CheckpointError, "no such file", refiner="resnet50:/nowhere/a.pth")
    fails(CheckpointError, "does not fit", sam=sam_spec.replace("custom", "vit_b"))


def test_a_place_that_is_taken(quick: str, sam_spec: str, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "thesis.txt").write_text("do not delete")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="exists and was not made by this command"):
            export_soss(quick, sam_spec, out, input_hw=HW, overwrite=overwrite)
    assert (out / "thesis.txt").exists()
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ExportError])
def test_interrupted(
    error: type[BaseException], quick: str, sam_spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(sams, "export_graph", interrupt)
    with pytest.raises(error):
        export_soss(quick, sam_spec, tmp_path / "bundle", input_hw=(16, 16))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick_sam")
def test_a_graph_that_lies_about_its_shape(quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def three_classes(*arguments: Any, **options: Any) -> tuple[int, None]:
        copy_onnx(*arguments, **options)
        return 3, None

    monkeypatch.setitem(SEGMENTERS, "onnx", three_classes)
    with pytest.raises(ExportError, match="the segmenter returns"):
        export_soss(quick, "vit_b:none", tmp_path / "bundle", input_hw=(16, 16))
    assert not list(tmp_path.iterdir())


def test_weights_beside_the_graph(quick: str, sam_spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-H's encoder has its weights in a second file, which the bundle lists and verifies."""
    monkeypatch.setattr(graph, "MAX_INLINE_BYTES", 1000)
    bundle = export_soss(quick, sam_spec, tmp_path / "bundle", input_hw=(16, 16))
    (data,) = bundle.manifest.models["encoder"].data
    assert data.file == "encoder.onnx.data"
    file = bundle.path / data.file
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match="sha256 differs"):
        open_bundle(bundle.path)
    file.unlink()
    with pytest.raises(BundleError, match=r"encoder\.onnx\.data \(encoder\) is missing"):
        open_bundle(bundle.path)
    file.write_bytes(whole)
    for name in ("../secret", "decoder.onnx.data", "/etc/passwd", "encoder.onnx"):
        manifest = json.loads((bundle.path / MANIFEST).read_text())
        manifest["models"]["encoder"]["data"][0]["file"] = name
        (bundle.path / MANIFEST).write_bytes(sealed(manifest))
        with pytest.raises(BundleError, match=r"only plain encoder\.onnx\.data files"):
            open_bundle(bundle.path)


def test_folder_gives_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the new folder cannot take the place of the old one, the old one is there again."""
    out, real, calls = tmp_path / "out", os.replace, []
    out.mkdir()
    (out / "old").touch()

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("disk full")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="disk full"), whole_folder(out, overwrite=True, ours=lambda _: True) as work:
        (work / "new").touch()
    assert [file.name for file in out.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [out]
