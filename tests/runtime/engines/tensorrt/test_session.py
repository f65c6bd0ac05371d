"""The native TensorRT engine from `maskrt build` to masks: on a stand-in, and with `-m gpu` on the real thing."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from tiny_bundle import IMAGE_SIZE, INPUT_HW, write_tiny_bundle

from maskrt.kernels import sets
from maskrt.kernels.pixel_decoder.tables import axis_table
from maskrt.runtime.bundle.bundle import Bundle, open_bundle
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.bundle.specs import RefinementSpec
from maskrt.runtime.engine_build.builder import BuildSettings, EngineBuilder
from maskrt.runtime.engine_build.profiles import profile_of
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.tensorrt.store import build_command
from maskrt.runtime.errors import BundleError, NetworkError
from maskrt.runtime.kinds.open import open_pipeline
from maskrt.runtime.pipelines.refine.pipeline import open_refiner
from maskrt.runtime.pipelines.refine.selections import selection_of
from maskrt.runtime.pipelines.refine.sizes import cells_side
from maskrt.runtime.pipelines.refine.stage import LEAST_TILE
from maskrt.runtime.types import Result

Maskrt = Callable[..., tuple[int, str, str]]
IMAGE = np.zeros((1, 3, *INPUT_HW), np.float32)


def build(bundle: Path, overrides: dict[str, Any] | None = None, batch: int = 1) -> Path:
    """Build every engine of a bundle."""
    builder = EngineBuilder(with_settings(open_bundle(bundle), overrides or {}), BuildSettings(batch=batch))
    for role in builder.roles:
        assert builder.build(role, lambda *_: None).how == "built"
    return bundle


@pytest.fixture
def built(tensorrt_machine: Any, tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle with its engines."""
    return build(shutil.copytree(tiny_bundle, tmp_path / "built"))


def test_the_masks_are_those_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tensorrt_machine: Any, tiny_bundle: Path, tmp_path: Path, maskrt: Maskrt
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "ward")
    monkeypatch.setattr("maskrt.cli.progress.EVERY_S", 0.0)
    rgb = np.full((90, 160, 3), 40, np.uint8)
    rgb[20:60, 40:100] = 210
    Image.fromarray(rgb).save(tmp_path / "bed.png")
    code, told, progress = maskrt("build", bundle, "--engine", "tensorrt")
    assert (code, told.count(": built: ")) == (0, 3)
    assert progress.startswith("1 of 3, segmenter: ")
    for provider in ("cpu", "tensorrt"):
        done = maskrt("run", bundle, tmp_path / "bed.png", "--out", tmp_path / provider, "--provider", provider)
        assert done[0] == 0
    ours, theirs = (np.asarray(Image.open(tmp_path / name / "mask/bed.png")) for name in ("tensorrt", "cpu"))
    assert theirs.any()
    assert (ours != theirs).sum() <= (0 if tensorrt_machine else 10)


def test_a_second_build_keeps_what_is_there(
    tensorrt_device: Any, tiny_bundle: Path, tmp_path: Path, maskrt: Maskrt
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "ward")
    assert maskrt("build", bundle, "--engine", "tensorrt")[0] == 0
    kernels = tensorrt_device.kernels_timed
    code, told, _ = maskrt("build", bundle, "--engine", "tensorrt")
    assert (code, told.count(": found: "), tensorrt_device.built) == (0, 3, 3)
    # Other settings are another engine; what was timed before is not timed again.
    assert maskrt("build", bundle, "--engine", "tensorrt", "--set", "points_per_batch=2")[0] == 0
    assert (tensorrt_device.built, tensorrt_device.kernels_timed) == (4, kernels)


def test_engines_agree_with_several_callers(built: Path, rng: np.random.Generator) -> None:
    frames = [rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8) for size_hw in ((60, 80), (33, 90))]
    with open_pipeline(built) as cpu, open_pipeline(built, "tensorrt") as tensorrt:
        for rgb in frames:
            ours, theirs = tensorrt(rgb), cpu(rgb)
            assert len(ours.segments) == len(theirs.segments) > 3
            assert np.abs(ours.probability - theirs.probability).max() < 1e-3
            assert (ours.label != theirs.label).mean() < 0.001


def test_names_shapes_and_a_run(built: Path) -> None:
    for role in ("segmenter", "encoder", "decoder"):
        path = built / f"{role}.onnx"
        with open_session(path) as cpu, open_session(path, "tensorrt") as tensorrt:
            assert tensorrt.inputs == cpu.inputs
            assert tensorrt.outputs == cpu.outputs
    with open_session(built / "segmenter.onnx", "tensorrt") as session:
        first = session.run({"image": IMAGE})["logits"]
        before = first.copy()
        session.run({"image": IMAGE + 1})
        assert (first == before).all()  # the next run does not overwrite it
        session.close()
        with pytest.raises(NetworkError, match="the session is closed"):
            session.run({"image": IMAGE})


def test_callers_have_contexts_of_their_own(built: Path, tensorrt_machine: Any, rng: np.random.Generator) -> None:
    images = [rng.integers(0, 256, (1, 20 + i, IMAGE_SIZE, 3), dtype=np.uint8) for i in range(24)]
    start = threading.Barrier(6)

    def call(images: list[np.ndarray]) -> list[np.ndarray]:
        start.wait()
        return [session.run({"image": image})["image_embeddings"] for image in images]

    with open_session(built / "encoder.onnx") as cpu:
        expected = [cpu.run({"image": image})["image_embeddings"] for image in images]
    with open_session(built / "encoder.onnx", "tensorrt", callers=3) as session, ThreadPoolExecutor(6) as pool:
        found = [value for part in pool.map(call, [images[i::6] for i in range(6)]) for value in part]
    for index, value in enumerate(found):
        assert np.allclose(value, expected[index // 4 + 6 * (index % 4)], atol=1e-3)
    if tensorrt_machine is not None:
        assert 1 <= tensorrt_machine.most_contexts <= 3


@pytest.mark.parametrize(
    ("feeds", "reason"),
    [
        ({}, "takes image"),
        ({"image": IMAGE, "other": IMAGE}, "takes image"),
        ({"image": IMAGE.astype(np.float64)}, "image is float64, the graph takes float32"),
        ({"image": IMAGE[:, :, :5]}, r"its engine takes .* maskrt build .* --batch N --set"),
    ],
)
def test_wrong_feeds_are_network_errors(built: Path, feeds: dict[str, np.ndarray], reason: str) -> None:
    with open_session(built / "segmenter.onnx", "tensorrt") as session:
        for _ in range(2):
            with pytest.raises(NetworkError, match=rf"segmenter\.onnx failed: .*{reason}"):
                session.run(feeds)
            session.run({"image": IMAGE})  # and it goes on


def test_a_size_outside_the_profile(built: Path) -> None:
    with (
        open_session(built / "encoder.onnx", "tensorrt") as session,
        pytest.raises(NetworkError, match=r"its engine takes \(1, 1, 1, 3\) to \(1, 64, 64, 3\)"),
    ):
        session.run({"image": np.zeros((1, 65, 10, 3), np.uint8)})


def test_nan_is_an_error(tensorrt_machine: Any, tmp_path: Path) -> None:
    bundle = build(write_tiny_bundle(tmp_path / "nan", np.nan))
    with (
        open_session(bundle / "segmenter.onnx", "tensorrt") as session,
        pytest.raises(NetworkError, match=r"segmenter\.onnx returned NaN or infinity in logits"),
    ):
        session.run({"image": IMAGE})


@pytest.mark.parametrize(("select", "tile"), [("full", 64), ("strided:4", 48), ("adaptive", 32)])
def test_a_refiner(
    tensorrt_machine: Any, refiner_bundle: Path, tmp_path: Path, rng: np.random.Generator, select: str, tile: int
) -> None:
    """Every size of window that a turn of the cascade can ask for has to be within the profiles."""
    bundle = build(shutil.copytree(refiner_bundle, tmp_path / "crm"), {"tile": tile})
    options = {"select": select, "tile": tile}
    with (
        open_refiner(with_settings(open_bundle(bundle), options)) as cpu,
        open_refiner(with_settings(open_bundle(bundle), options), "tensorrt") as tensorrt,
    ):
        for height, width in ((150, 330), (5, 9)):
            rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
            rough = np.zeros((height, width), np.float32)
            rough[height // 4 : -1, width // 4 : -1] = 1
            assert np.abs(tensorrt(rgb, rough).probability - cpu(rgb, rough).probability).max() < 1e-3


def test_a_tile_never_reads_more_cells_than_its_profile_has(rng: np.random.Generator) -> None:
    for _ in range(300):
        size, scale = int(rng.integers(65, 2000)), float(rng.uniform(0.1, 1))
        tile, select = (
            int(rng.integers(16, 400)),
            ("full", f"strided:{rng.integers(2, 65)}", "adaptive")[rng.integers(3)],
        )
        longest = cells_side(RefinementSpec(tile=tile))
        selection = selection_of(select, sets.CPU)
        step, lead = selection.step, selection.lead
        tile = int(rng.choice([tile, max(LEAST_TILE, tile // 2)]))  # as CascadeStage.decode cuts
        cells = axis_table(size, -(-max(1, round(size * scale)) // 2)).cells
        begin = int(rng.integers(size)) // step * step
        rows = slice(max(0, begin - lead), min(begin + -(-tile // step) * step + (step > 1), size))
        assert cells[rows.stop - 1, 1] + 1 - cells[rows.start, 0] <= longest


def test_a_uint8_input_is_read_by_a_cast_alone(tensorrt_machine: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    """As exporters write it: the sizes are those of the input, and TensorRT has no other operator for uint8."""
    bundle = shutil.copytree(tiny_bundle, tmp_path / "shape")
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Shape", ["image"], ["sizes"]),
        helper.make_node("ConstantOfShape", ["sizes"], ["zeros"]),
        helper.make_node("Add", ["floats", "zeros"], ["image_embeddings"]),
    ]
    values = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["b", "h", "w", 3]),
        helper.make_tensor_value_info("image_embeddings", TensorProto.FLOAT, ["b", "h", "w", 3]),
    ]
    graph = helper.make_graph(nodes, "sizes", values[:1], values[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), bundle / "encoder.onnx"
    )
    EngineBuilder(Bundle(bundle, open_bundle(tiny_bundle).manifest), BuildSettings()).build("encoder", lambda *_: None)
    with open_session(bundle / "encoder.onnx", "tensorrt") as session:
        image = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
        assert (session.run({"image": image})["image_embeddings"] == image).all()


def test_a_segmenter_of_any_size_is_built_for_its_own(tiny_bundle: Path) -> None:
    shape = (1, 3, *INPUT_HW)
    assert profile_of(open_bundle(tiny_bundle), "segmenter", {"x": (-1, 3, -1, -1)}) == {"x": (shape, shape, shape)}
    assert profile_of(open_bundle(tiny_bundle), "segmenter", {"image": shape}, batch=4) == {}


def test_a_batch_of_frames(tensorrt_machine: Any, tiny_bundle: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    bundle = build(shutil.copytree(tiny_bundle, tmp_path / "four"), batch=4)
    frames = [rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8) for size_hw in ((60, 80), (33, 90), (60, 80))]
    with open_pipeline(bundle, "tensorrt") as pipeline:
        for found, rgb in zip(pipeline.batch(frames, [None] * 3), frames, strict=True):
            assert isinstance(found, Result)
            assert (found.label != pipeline(rgb).label).mean() < 0.001
        with pytest.raises(NetworkError, match=r"its engine takes \(1, .* to \(4, .*: maskrt build .* --batch N"):
            pipeline.batch(frames[:1] * 5, [None] * 5)


@pytest.mark.parametrize("batch", [1, 8])
def test_the_batch_of_a_profile(tiny_bundle: Path, batch: int) -> None:
    """The graphs that take several frames; the decoder's batch is one of prompts."""
    bundle, side = open_bundle(tiny_bundle), IMAGE_SIZE
    segmenter = profile_of(bundle, "segmenter", {"image": (-1, 3, *INPUT_HW)}, batch)
    assert segmenter == {"image": tuple((count, 3, *INPUT_HW) for count in (1, batch, batch))}
    encoder = profile_of(bundle, "encoder", {"image": (-1, -1, -1, 3)}, batch)
    assert encoder == {"image": ((1, 1, 1, 3), (batch, side, side, 3), (batch, side, side, 3))}
    coords = {"point_coords": (-1, -1, 2)}
    assert profile_of(bundle, "decoder", coords, batch) == profile_of(bundle, "decoder", coords)


def test_settings_that_engines_are_built_for(tiny_bundle: Path) -> None:
    manifest = with_settings(open_bundle(tiny_bundle), {"points_per_batch": 2, "tile": 64, "vote": "hard"}).expect(
        SossManifest
    )
    assert (manifest.masks.points_per_batch, manifest.refinement.tile, manifest.voting.vote) == (2, 64, "hard")
    assert manifest.masks.points_per_side == open_bundle(tiny_bundle).expect(SossManifest).masks.points_per_side
    with pytest.raises(BundleError, match=r"there is no setting points_per_batches: .*, of kind soss, has these"):
        with_settings(open_bundle(tiny_bundle), {"points_per_batches": 2})


def test_an_axis_that_no_table_knows(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="axis 2 of image_embeddings has no fixed size: export the bundle again"):
        profile_of(open_bundle(tiny_bundle), "decoder", {"image_embeddings": (1, 3, -1, 4)})


def test_an_encoder_of_one_picture_is_not_built(tiny_bundle: Path) -> None:
    """An older bundle's graph, whose height would be taken for a batch."""
    with pytest.raises(BundleError, match="encoder: image is one picture, not a batch of them: export"):
        profile_of(open_bundle(tiny_bundle), "encoder", {"image": (-1, -1, 3)})


def test_a_precision_is_built_by_name(tiny_bundle: Path) -> None:
    """Settings leave the precision as it is, and the fix for a missing engine names it."""
    bundle = replace(open_bundle(tiny_bundle), precision="fp16")
    assert with_settings(bundle, {"points_per_batch": 3}).precision == "fp16"
    assert build_command(Path("ward/encoder.onnx")) == "maskrt build ward --engine tensorrt"
    assert build_command(Path("ward/encoder.onnx"), 1) == "maskrt build ward --engine tensorrt --device 1"
    assert build_command(Path("ward/encoder.fp16.onnx")) == "maskrt build ward --engine tensorrt --precision fp16"
