"""TensorRT's lanes: what they hand over, when its memory is used again, and their graphs."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorrt_standin.cuda import cudaMemcpyKind
from tiny_bundle import IMAGE_SIZE, INPUT_HW

from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.engine_build.builder import BuildSettings, EngineBuilder
from maskrt.runtime.engines.device_tensor import DeviceTensor
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.recorder import Recorder
from maskrt.runtime.engines.tensorrt.memory import Cuda
from maskrt.runtime.errors import BundleError, NetworkError, OutOfMemory, ProviderUnavailable
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.sam.mask_decoder import SPLIT_DECODER

Maskrt = Callable[..., tuple[int, str, str]]
DEMO = Path(__file__).parents[4] / "export/demo/bundle"
IN, OUT, WITHIN = (
    cudaMemcpyKind.cudaMemcpyHostToDevice,
    cudaMemcpyKind.cudaMemcpyDeviceToHost,
    cudaMemcpyKind.cudaMemcpyDeviceToDevice,
)


def build(bundle: Path, roles: tuple[str, ...], device: int = 0, **settings: Any) -> Path:
    """Build engines of a bundle."""
    builder = EngineBuilder(with_settings(open_bundle(bundle), settings), BuildSettings(), device=device)
    for role in roles:
        builder.build(role, lambda *_: None)
    return bundle


@pytest.fixture
def built(tensorrt_machine: Any, bundle: Path) -> Path:
    """The bundle with its engines, on the stand-in and with `-m gpu` on the real thing."""
    return build(bundle, ("segmenter", "encoder", "decoder"))


def prompts(rng: np.random.Generator, count: int = 5) -> dict[str, np.ndarray]:
    """Inputs of the tiny decoder, without the embedding."""
    return {
        "point_coords": rng.uniform(0, 64, (count, 2, 2)).astype(np.float32),
        "point_labels": np.tile(np.array([1, -1], np.float32), (count, 1)),
        "mask_input": np.zeros((1, 1, 32, 32), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


def image_of(rng: np.random.Generator, height: int = 40) -> np.ndarray:
    return rng.integers(0, 256, (1, height, IMAGE_SIZE, 3), np.uint8)


def test_one_engine_reads_what_another_has_left(built: Path, tensorrt_machine: Any, rng: np.random.Generator) -> None:
    image, feeds = image_of(rng), prompts(rng, 6)
    with open_session(built / "encoder.onnx") as encoder, open_session(built / "decoder.onnx") as decoder:
        embeddings = encoder.run({"image": image})["image_embeddings"]
        expected = decoder.run({**feeds, "image_embeddings": embeddings})
    with (
        open_session(built / "encoder.onnx", "tensorrt") as encoder,
        open_session(built / "decoder.onnx", "tensorrt") as decoder,
    ):
        kept = encoder.run({"image": image}, keep_on_device=("image_embeddings",))["image_embeddings"]
        assert isinstance(kept, DeviceTensor)
        assert (kept.shape, kept.dtype) == (embeddings.shape, embeddings.dtype)
        if tensorrt_machine is not None:
            assert (tensorrt_machine.copies[IN], tensorrt_machine.copies[OUT]) == (1, 0)
        found = decoder.run({**feeds, "image_embeddings": kept}, keep_on_device=("low_res_masks",))
        if tensorrt_machine is not None:
            assert (tensorrt_machine.copies[IN], tensorrt_machine.copies[OUT]) == (1 + 4, 1)
        assert np.allclose(kept.numpy(), embeddings, atol=1e-3)
    # Its memory outlives the session.
    for first in range(7):
        rows = slice(first, first + 2)
        assert np.allclose(found["low_res_masks"][rows].numpy(), expected["low_res_masks"][rows], atol=1e-2)
    assert np.allclose(found["pred_iou"], expected["pred_iou"], atol=1e-3)


def test_rows_are_copied_on_the_device(built: Path, tensorrt_machine: Any, rng: np.random.Generator) -> None:
    """A row of masks is 12288 bytes, of coordinates 16: TensorRT takes addresses at multiples of 256 only."""
    feeds = {**prompts(rng, 1), "image_embeddings": rng.standard_normal((1, 3, 4, 4), np.float32)}
    with open_session(built / "decoder.onnx", "tensorrt") as session:
        masks = session.run({**feeds, **prompts(rng, 8)}, keep_on_device=("low_res_masks", "pred_iou"))
        hints = masks["low_res_masks"]
        assert isinstance(hints, DeviceTensor)
        iou = masks["pred_iou"]
        for row in range(8):
            assert (iou[row : row + 1].numpy() == iou.numpy()[row : row + 1]).all()
        # Three masks a prompt as the first of three rows each: the same memory in another shape.
        rows = DeviceTensor(hints.place, hints.memory, (24, 1, 32, 32), hints.dtype)
        before = None if tensorrt_machine is None else dict(tensorrt_machine.copies)
        for row in (0, 7, 23):
            mask = rows[row : row + 1]
            found = session.run({**feeds, "mask_input": mask})["pred_iou"]
            assert np.allclose(found, session.run({**feeds, "mask_input": mask.numpy()})["pred_iou"], atol=1e-3)
        if before is not None:
            assert tensorrt_machine.copies[WITHIN] - before[WITHIN] == 3 + 3  # numpy() copies within as well


def test_memory_comes_back(tensorrt_device: Any, bundle: Path, rng: np.random.Generator) -> None:
    build(bundle, ("encoder",))
    session = open_session(bundle / "encoder.onnx", "tensorrt")
    first = session.run({"image": image_of(rng)}, keep_on_device=("image_embeddings",))["image_embeddings"]
    address, value = first.address, first.numpy()
    second = session.run({"image": image_of(rng)}, keep_on_device=("image_embeddings",))["image_embeddings"]
    assert second.address != address
    assert (first.numpy() == value).all()  # still in use, so not written to
    part = first[0:1]
    del first
    third = session.run({"image": image_of(rng)}, keep_on_device=("image_embeddings",))["image_embeddings"]
    assert third.address not in (address, second.address)
    del part, third
    blocks = len(tensorrt_device.allocations)
    fourth = session.run({"image": image_of(rng)}, keep_on_device=("image_embeddings",))["image_embeddings"]
    assert len(tensorrt_device.allocations) == blocks
    session.close()
    assert tensorrt_device.held == {"device": 2}  # fourth and second
    expected = fourth.numpy()
    del second
    assert (fourth.numpy() == expected).all()
    del fourth
    assert tensorrt_device.held == {}


def test_larger_outputs_take_other_blocks(tensorrt_device: Any, bundle: Path, rng: np.random.Generator) -> None:
    build(bundle, ("decoder",))
    embeddings = rng.standard_normal((1, 3, 4, 4), np.float32)
    with open_session(bundle / "decoder.onnx", "tensorrt") as session, open_session(bundle / "decoder.onnx") as cpu:
        for count in (2, 1, 8, 3, 8):
            feeds = {**prompts(rng, count), "image_embeddings": embeddings}
            masks = session.run(feeds, keep_on_device=("low_res_masks",))["low_res_masks"]
            assert (masks.numpy() == cpu.run(feeds)["low_res_masks"]).all()
            del masks
        assert len(tensorrt_device.allocations) == 5 + 2  # one for each input and output, whatever their sizes were


def test_what_fails_leaves_nothing(tensorrt_device: Any, bundle: Path, rng: np.random.Generator) -> None:
    build(bundle, ("decoder",))
    feeds = {**prompts(rng, 8), "image_embeddings": rng.standard_normal((1, 3, 4, 4), np.float32)}
    with open_session(bundle / "decoder.onnx", "tensorrt") as session:
        tensorrt_device.memory_bytes = 60_000  # room for what is fed, not for the masks of eight prompts
        with pytest.raises(OutOfMemory, match="out of GPU memory"):
            session.run(feeds, keep_on_device=("low_res_masks",))
        assert tensorrt_device.held == {}
        tensorrt_device.memory_bytes = 1 << 30
        session.run(feeds, keep_on_device=("low_res_masks",))


def test_unchanged_work_is_launched_as_a_graph(built: Path, tensorrt_machine: Any, rng: np.random.Generator) -> None:
    heights = [40, 40, 40, 40, 41, 41, 41, 40, 40]
    with (
        open_session(built / "encoder.onnx") as cpu,
        open_session(built / "encoder.onnx", "tensorrt") as session,
    ):
        launches = []
        for height in heights:
            image = image_of(rng, height)
            found = session.run({"image": image})["image_embeddings"]
            assert np.allclose(found, cpu.run({"image": image})["image_embeddings"], atol=1e-3)
            launches.append(tensorrt_machine.launches if tensorrt_machine else 0)
        assert session.not_captured == ""  # type: ignore[attr-defined]
        if tensorrt_machine is not None:
            # Each size runs once as ever, then as a graph; the larger picture's buffer is another.
            assert launches == [0, 1, 2, 3, 3, 4, 5, 5, 6]
            assert tensorrt_machine.captured == 3
            assert tensorrt_machine.held["executables"] == 1


def test_a_graph_ends_with_its_addresses(tensorrt_device: Any, bundle: Path, rng: np.random.Generator) -> None:
    build(bundle, ("encoder",))
    with open_session(bundle / "encoder.onnx", "tensorrt") as session, open_session(bundle / "encoder.onnx") as cpu:
        held: list[DeviceTensor] = []
        for held_now in (0, 0, 0, 1, 1, 0, 0, 0):
            image = image_of(rng)
            kept = session.run({"image": image}, keep_on_device=("image_embeddings",))["image_embeddings"]
            assert (kept.numpy() == cpu.run({"image": image})["image_embeddings"]).all()
            held = [*held, kept] if held_now else []
            del kept
    # Captured at the second run; at the fifth and sixth what it wrote to is still held, and the outputs lie elsewhere.
    assert (tensorrt_device.captured, tensorrt_device.launches) == (2, 3 + 2)


@pytest.mark.parametrize("where", ["execute", "end", "instantiate"])
def test_what_cannot_be_captured_runs_without(
    tensorrt_device: Any, bundle: Path, rng: np.random.Generator, where: str
) -> None:
    build(bundle, ("encoder",))
    tensorrt_device.refuse_capture = where
    with open_session(bundle / "encoder.onnx", "tensorrt", callers=2) as session:
        assert session.not_captured == ""  # type: ignore[attr-defined]
        with open_session(bundle / "encoder.onnx") as cpu:
            for _ in range(4):
                image = image_of(rng)
                found = session.run({"image": image})["image_embeddings"]
                assert (found == cpu.run({"image": image})["image_embeddings"]).all()
        assert session.not_captured  # type: ignore[attr-defined]
        tensorrt_device.refuse_capture = ""
        captured = tensorrt_device.captured
        with ThreadPoolExecutor(2) as pool:  # the other lane knows it too
            list(pool.map(lambda _: session.run({"image": image}), range(8)))
        assert (tensorrt_device.captured, tensorrt_device.launches) == (captured, 0)
        assert tensorrt_device.held.get("graphs", 0) == 0


def test_the_pipeline(tensorrt_machine: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    """Only what is asked and what is answered crosses: pictures, points, predicted IoUs and masks."""
    bundle = build(
        shutil.copytree(DEMO, tmp_path / "demo"), ("segmenter", "encoder", *SPLIT_DECODER), points_per_side=4
    )
    rgb = rng.integers(0, 256, (90, 120, 3), np.uint8)
    rgb[20:60, 30:70] = 250
    gates = {"pred_iou_thresh": 0.2, "stability_score_thresh": 0.0, "box_nms_thresh": 0.95}
    options = {"points_per_side": 4, "select": "off", **gates}
    recorder, found = Recorder(size=1000), {}
    with SossPipeline(
        with_settings(open_bundle(bundle), options), threads=2, wrap_session=recorder.wrap_session
    ) as pipeline:
        found["cpu"] = pipeline(rgb)
    with SossPipeline(with_settings(open_bundle(bundle), options), "tensorrt", threads=2) as pipeline:
        found["tensorrt"] = pipeline(rgb)
        runs = {role: len(kept) for role, kept in recorder.runs.items()}
        if tensorrt_machine is not None:
            assert tensorrt_machine.copies[OUT] == runs["segmenter"] + runs["token_side"] + runs["upscale"]
            assert tensorrt_machine.copies[IN] == runs["segmenter"] + runs["encoder"] + 2 * runs["token_side"]
            assert tensorrt_machine.launches >= runs["upscale"] - 2  # all but the first of each of two lanes
    assert len(found["cpu"].segments) > 3
    assert len(found["tensorrt"].segments) == len(found["cpu"].segments)
    assert (found["tensorrt"].label != found["cpu"].label).mean() < 0.001


def test_the_second_gpu(tensorrt_device: Any, bundle: Path, rng: np.random.Generator, maskrt: Maskrt) -> None:
    with pytest.raises(ProviderUnavailable, match="GPU 1 requested, CUDA finds 1, counted from 0"):
        open_session(bundle / "encoder.onnx", "tensorrt:1")
    tensorrt_device.devices = 2
    build(bundle, ("encoder",))
    fix = rf"found .* on NVIDIA T4 \(7\.5\).*: run maskrt build {bundle} --engine tensorrt --device 1$"
    with pytest.raises(BundleError, match=rf"engine built for .* on NVIDIA L4 \(8\.9\).*{fix}"):
        open_session(bundle / "encoder.onnx", "tensorrt:1")
    code, told, _ = maskrt("build", bundle, "--engine", "tensorrt", "--device", 1)
    assert (code, told.count(": built: ")) == (0, 3)
    assert " on NVIDIA T4 (7.5)" in told
    Cuda(0).select()  # as another library might
    image = image_of(rng)
    with (
        open_session(bundle / "encoder.onnx") as cpu,
        open_session(bundle / "encoder.onnx", "tensorrt:1", callers=3) as session,
        ThreadPoolExecutor(3) as pool,
    ):
        expected = cpu.run({"image": image})["image_embeddings"]
        kept = list(pool.map(lambda _: session.run({"image": image}, keep_on_device=("image_embeddings",)), range(9)))
        assert all((each["image_embeddings"].numpy() == expected).all() for each in kept)
        assert {tensorrt_device.gpu_of[address] for address in tensorrt_device.allocations} == {1}
        assert {tensorrt_device.gpu_of[address] for address in tensorrt_device.streams} == {1}
        Cuda(0).select()
    del kept


def test_residents_of_another_gpu_are_refused(tensorrt_device: Any, bundle: Path, rng: np.random.Generator) -> None:
    tensorrt_device.devices = 2
    tensorrt_device.others = (tensorrt_device.name, tensorrt_device.capability)  # of the same kind: one engine for both
    build(bundle, ("encoder", "decoder"))
    with (
        open_session(bundle / "encoder.onnx", "tensorrt:1") as encoder,
        open_session(bundle / "decoder.onnx", "tensorrt") as decoder,
    ):
        kept = encoder.run({"image": image_of(rng)}, keep_on_device=("image_embeddings",))
        fix = r"lies on TensorRT's device 1, this session computes on TensorRT's device 0: open both on one provider"
        with pytest.raises(NetworkError, match=fix):
            decoder.run({**prompts(rng), **kept})
        decoder.run({**prompts(rng), "image_embeddings": kept["image_embeddings"].numpy()})


def test_a_closed_session_has_no_lane(tensorrt_device: Any, bundle: Path) -> None:
    build(bundle, ("segmenter",))
    session = open_session(bundle / "segmenter.onnx", "tensorrt")
    session.close()
    session.close()
    with pytest.raises(NetworkError, match="the session is closed"):
        session.run({"image": np.zeros((1, 3, *INPUT_HW), np.float32)}, keep_on_device=("logits",))
