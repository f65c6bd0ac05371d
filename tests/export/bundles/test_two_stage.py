"""Export of two-stage bundles: the public checkpoint's format, parity with PyTorch, and what is refused."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from maskrt.cli.main import app
from maskrt.export.architectures.unet import UNet, unet_for
from maskrt.export.bundles import two_stage
from maskrt.export.bundles.onnx_answer import OnnxOptions
from maskrt.export.bundles.stages import STAGES, Stage, read_unet, read_unet_stage
from maskrt.export.bundles.two_stage import check, export_two_stage
from maskrt.export.bundles.two_stage_plain import look_plainly
from maskrt.export.demo.train_unets import initialise
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import TwoStageManifest
from maskrt.runtime.bundle.settings import with_overrides, with_settings
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec
from maskrt.runtime.errors import CheckpointError, ExportError, InputError
from maskrt.runtime.kinds.open import open_pipeline

pytestmark = pytest.mark.export

SIZE, PATCHES = 256, PatchSelectionSpec(patches=4)
# Of the public code, from a checkpoint that its training would write, width 64 and three channels.
PUBLIC = {
    **{f"conv.{level}.weight": (64 << level, 3 if level == 0 else 32 << level, 3, 3) for level in range(5)},
    **{f"conv.{level}.bias": (64 << level,) for level in range(5)},
    **{f"deconv.{level}.weight": (2048 >> level, 512 >> level, 3, 3) for level in range(5)},
    **{f"deconv.{level}.bias": (512 >> level,) for level in range(5)},
    "final.weight": (1, 32, 1, 1),
    "final.bias": (1,),
}


def write_unet(file: Path, *, channels: int = 3, width: int = 4, classes: int = 1, seed: int = 0) -> str:
    torch.manual_seed(seed)
    network = UNet(channels, width, classes)
    initialise(network)
    torch.save(network.state_dict(), file)
    return f"unet:{file}"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Checkpoints by what they are: one logit, grey pictures, four classes."""
    folder = tmp_path_factory.mktemp("unets")
    kinds: dict[str, dict[str, int]] = {"colour": {}, "grey": {"channels": 1}, "four": {"classes": 4, "width": 6}}
    return {
        name: (
            write_unet(folder / f"{name}_low.pth", seed=1, **sizes),
            write_unet(folder / f"{name}_high.pth", seed=2, **sizes),
        )
        for name, sizes in kinds.items()
    }


def test_the_keys_and_sizes_are_those_of_the_public_code() -> None:
    assert {key: tuple(value.shape) for key, value in UNet(3).state_dict().items()} == PUBLIC


@pytest.mark.parametrize("sizes", [(3, 64, 1), (1, 4, 2), (3, 10, 5)])
def test_sizes_are_read_from_the_checkpoint(sizes: tuple[int, int, int]) -> None:
    state = UNet(*sizes).state_dict()
    unet_for(state).load_state_dict(state, strict=True)


def test_logits_have_the_size_of_the_picture() -> None:
    assert UNet(3, 2, 5)(torch.zeros(2, 3, 64, 96)).shape == (2, 5, 64, 96)


@pytest.fixture(scope="module")
def bundles(pairs: dict[str, tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundle of each pair, compared with PyTorch at its export."""
    folder, lines = tmp_path_factory.mktemp("bundles"), []
    for name, (low, high) in pairs.items():
        options: dict[str, Any] = {"size": SIZE, "patch_selection": PATCHES, "report": lines.append}
        export_two_stage(low, high, folder / name, fit="keep", **options)
        export_two_stage(low, high, folder / f"{name} square", **options)
    assert sum(line.startswith("two stages: differ from PyTorch by at most") for line in lines) == 2 * len(pairs)
    return {f"{name}{fit}": folder / f"{name}{fit}" for name in pairs for fit in ("", " square")}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("colour", {}),
        ("grey", {"patches": 2}),
        ("four", {"patches": 4, "patch_fraction": 0.3}),
        ("colour", {"rank": "logit", "patch_count": 5}),
        ("colour", {"uncertainty": 0.3}),
        ("four", {"uncertainty": 0.1}),
        ("colour square", {}),
        ("four square", {"patches": 2, "patch_fraction": 0.5}),
        ("grey square", {"uncertainty": 0.3}),
    ],
)
def test_the_pipeline_is_the_plain_order_of_computation(
    kind: str, settings: dict[str, Any], pairs: dict[str, tuple[str, str]], bundles: dict[str, Path]
) -> None:
    networks = [read_unet(Path(spec.removeprefix("unet:"))) for spec in pairs[kind.removesuffix(" square")]]
    manifest = open_bundle(bundles[kind]).expect(TwoStageManifest)
    selection = with_overrides(manifest.patch_selection, settings)
    rng = np.random.default_rng()
    for height, width in ((256, 256), (90, 301), (512, 33), (1, 700), (1, 1)):
        rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
        expected = look_plainly(*networks, manifest.two_stage, selection, rgb)
        with open_pipeline(bundles[kind], settings=settings) as pipeline:
            (found,) = pipeline.segmenter([rgb])
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"windows": "sliding"}, {"windows": "off"}, {"uncertainty": 0.01}])
def test_the_export_compares_the_networks_whatever_is_looked_at(
    settings: dict[str, Any],
    pairs: dict[str, tuple[str, str]],
    bundles: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages = {
        role: read_unet_stage(Path(spec.removeprefix("unet:")), bundles["colour"] / f"{role}.onnx", 64)
        for role, spec in zip(("low", "high"), pairs["colour"], strict=True)
    }
    bundle, lines = with_settings(open_bundle(bundles["colour"]), settings), []
    check(bundle, stages, lines.append)
    assert "differ from PyTorch by at most" in lines[0]
    monkeypatch.setattr(two_stage, "look_plainly", lambda *arguments: look_plainly(*arguments) + 0.01)
    with pytest.raises(ExportError, match=r"differ from PyTorch by 1\.0e-02"):
        check(bundle, stages, lines.append)


def test_defaults_are_those_of_the_public_code(bundles: dict[str, Path]) -> None:
    spec = open_bundle(bundles["grey"]).expect(TwoStageManifest).two_stage
    assert (spec.channels, spec.shrink, spec.mean, spec.std) == (1, 8, (0.0,), (1 / 255,))  # values from 0 to 255
    assert spec.classes == ("background", "foreground")


def test_onnx_files_are_taken_as_they_are(bundles: dict[str, Path], tmp_path: Path) -> None:
    files = [f"onnx:{bundles['colour'] / role}.onnx" for role in ("low", "high")]
    raw: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    export_two_stage(*files, tmp_path / "files", size=SIZE, fit="keep", patch_selection=PATCHES, **raw)
    rgb = np.random.default_rng().integers(0, 256, (200, 150, 3), np.uint8)
    answers = []
    for bundle in (bundles["colour"], tmp_path / "files"):
        with open_pipeline(bundle) as pipeline:
            answers.append(pipeline(rgb).probability)
    np.testing.assert_array_equal(*answers)
    with pytest.raises(InputError, match="--mean R,G,B --std R,G,B"):
        export_two_stage(*files, tmp_path / "other", size=SIZE, patch_selection=PATCHES)


def network(file: Path, *, shape: tuple[Any, ...], logits: int = 1, sizes: tuple[Any, ...] = ("H", "W")) -> str:
    """A pointwise convolution."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [logits, shape[1], 1, 1], [0.1] * (logits * shape[1]))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], logits, *sizes])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return f"onnx:{file}"


NORMAL: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def test_fixed_sizes_that_fit(tmp_path: Path) -> None:
    """Each graph has its own size, smaller or larger than the other's; or one of them is open."""
    low = network(tmp_path / "low.onnx", shape=(1, 3, 64, 64), sizes=(64, 64))
    rgb = np.zeros((100, 300, 3), np.uint8)
    for patches, sides in ((4, 128), (8, 64), (16, 32), (4, "side")):
        high = network(tmp_path / "high.onnx", shape=(1, 3, sides, sides), sizes=(sides, sides))
        selection = PatchSelectionSpec(patches=patches)
        bundle = export_two_stage(
            low, high, tmp_path / f"{patches}{sides}", size=512, patch_selection=selection, **NORMAL
        )
        assert bundle.expect(TwoStageManifest).two_stage.multiple == (32 if sides == "side" else 1)
        with open_pipeline(bundle.path) as pipeline:
            assert len(pipeline(rgb).stages.windows_xywh) == patches


@pytest.mark.parametrize(
    ("shape", "sizes", "message"),
    [
        ((1, 3, 48, 64), (48, 64), "export it again for that"),
        ((2, 3, "H", "W"), ("H", "W"), "export it again for that"),
        ((1, 2, "H", "W"), ("H", "W"), "export it again for that"),
    ],
)
def test_onnx_files_of_other_sizes_are_refused(
    shape: tuple[Any, ...], sizes: tuple[Any, ...], message: str, tmp_path: Path
) -> None:
    low = network(tmp_path / "low.onnx", shape=shape, sizes=sizes)
    with pytest.raises(InputError, match=message):
        export_two_stage(low, low, tmp_path / "b", size=512, **NORMAL)
    assert not (tmp_path / "b").exists()


def test_an_open_batch_that_mixes_pictures_is_refused(tmp_path: Path) -> None:
    """The patches of a frame are one batch: each would change with the others."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0, 1]),
            helper.make_node("Add", ["x", "mean"], ["sum"]),
            helper.make_node("ReduceMean", ["sum"], ["y"], axes=[1]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 1, "H", "W"])],
    )
    file = tmp_path / "mixing.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    with pytest.raises(InputError, match=r"leaves the first axis of x open, but its answer to two .* 1,3,H,W"):
        export_two_stage(f"onnx:{file}", f"onnx:{file}", tmp_path / "b", size=512, **NORMAL)
    assert not (tmp_path / "b").exists()


def test_a_baseline_is_exported_beside_the_stages(pairs: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    options: dict[str, Any] = {"size": SIZE, "patch_selection": PATCHES}
    bundle = export_two_stage(*pairs["colour"], tmp_path / "b", baseline=pairs["colour"][1], **options)
    assert list(bundle.manifest.models) == ["low", "high", "baseline"]
    assert bundle.model("baseline").sha256 == bundle.model("high").sha256
    with pytest.raises(InputError, match=r"low takes 3 channels .*, baseline 1 and 1: give"):
        export_two_stage(*pairs["colour"], tmp_path / "c", baseline=pairs["grey"][1], **options)


def test_networks_of_different_tasks_are_refused(pairs: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    for other in ("grey", "four"):
        with pytest.raises(InputError, match="give two networks of one task"):
            export_two_stage(pairs["colour"][0], pairs[other][1], tmp_path / "b", size=SIZE, patch_selection=PATCHES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 250}, "4 patches do not divide 250 pixels"),
        ({"size": 192}, "patches=4 makes patches of 48 pixels"),
        ({"size": 64}, "patches=4 makes patches of 16 pixels"),
        ({"size": SIZE, "classes": ("a",)}, "1 class names given"),
        ({"size": SIZE, "mean": (128,) * 3, "std": (58,) * 3}, r"mean \(128, .* give --scale 255"),
        ({"size": SIZE, "onnx": OnnxOptions(output="y")}, "leave them out for a U-Net"),
        ({"size": SIZE, "mean": (0.5,) * 3}, "give both, or neither"),
        ({"size": SIZE, "mean": (0.5,), "std": (0.5,)}, "mean and std must have 3 numbers each"),
        ({"size": SIZE, "mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, "give numbers above 0"),
        ({"size": SIZE, "mean": (0.5,) * 3, "std": (0.5, math.nan, 0.5)}, "give finite numbers"),
        ({"size": SIZE, "mean": (math.inf,) * 3, "std": (0.5,) * 3}, "give finite numbers"),
        ({"size": 32768}, "size 32768: choose one from 32 to 16384"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, pairs: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_two_stage(*pairs["colour"], tmp_path / "b", patch_selection=PATCHES, **options)
    assert not (tmp_path / "b").exists()


def test_checkpoints_of_something_else(pairs: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    low, high = pairs["colour"]
    torch.save({"conv.0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "half.pth")
    state = UNet(3, 4).state_dict()
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "more.pth")
    for file, message in (("half.pth", "no prefix holds final"), ("more.pth", "extra"), ("none.pth", "no such file")):
        with pytest.raises(CheckpointError, match=message):
            export_two_stage(f"unet:{tmp_path / file}", high, tmp_path / "b", size=SIZE, patch_selection=PATCHES)
    with pytest.raises(InputError, match="known: unet, onnx"):
        export_two_stage("resnet:x", high, tmp_path / "b")
    with pytest.raises(InputError, match="KIND:FILE"):
        export_two_stage(low, "x", tmp_path / "b")


def test_a_pipeline_that_differs_is_not_written(
    pairs: dict[str, tuple[str, str]], bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*arguments: Any) -> Any:
        return look_plainly(*arguments) + 0.01

    def written_before(checkpoint: Path, path: Path, side: int, _: OnnxOptions) -> Stage:
        stage = read_unet_stage(checkpoint, path, side)
        shutil.copyfile(bundles["colour"] / path.name, path)
        return stage._replace(write=lambda report: None)

    monkeypatch.setitem(STAGES, "unet", written_before)
    monkeypatch.setattr(two_stage, "look_plainly", other)
    with pytest.raises(ExportError, match=r"differ from PyTorch by 1\.0e-02"):
        export_two_stage(*pairs["colour"], tmp_path / "b", size=SIZE, patch_selection=PATCHES)
    assert not (tmp_path / "b").exists()


def test_on_the_command_line(pairs: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    low, high = pairs["colour"]
    arguments = ["export", "two-stage", "--low", low, "--high", high, "--out", str(tmp_path / "b")]
    options = ["--patches", "4", "--size", "256", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    result = CliRunner().invoke(app, [*arguments, *options, "--set", "patch_fraction=0.5", "--classes", "skin,lesion"])
    assert result.exit_code == 0, result.output
    assert "two stages: differ from PyTorch" in result.output
    manifest = open_bundle(tmp_path / "b").expect(TwoStageManifest)
    assert (manifest.patch_selection.patches, manifest.patch_selection.patch_fraction) == (4, 0.5)
    assert manifest.two_stage.classes == ("skin", "lesion")
    assert manifest.two_stage.fit == "square"
    Image.fromarray(np.full((40, 60), 77, np.uint8)).save(tmp_path / "grey.png")
    run = ["run", str(tmp_path / "b"), str(tmp_path / "grey.png"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, run)
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "out" / "mask" / "grey.png").size == (60, 40)
