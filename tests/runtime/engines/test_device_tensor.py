"""Tensors on a device: ONNX Runtime's own binding on the only one that is here, and the pipeline through it."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.engines.device_tensor import DeviceTensor, Place
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.engines.onnxruntime import OnnxRuntimeSession
from maskrt.runtime.engines.onnxruntime_options import DEVICE_MEMORY, DeviceMemory
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.recorder import Recorder
from maskrt.runtime.errors import NetworkError
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.sam.mask_decoder import GPU_WORKERS, SPLIT_DECODER, SplitDecoder, open_decoder
from maskrt.runtime.types import Result

DEMO = Path(__file__).parents[3] / "export/demo/bundle"  # has the decoder's three graphs


class Bytes:
    """Memory on the host."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.address = array.ctypes.data

    def fetch(self, offset: int, nbytes: int) -> np.ndarray:
        return self.array.reshape(-1).view(np.uint8)[offset : offset + nbytes].copy()


def device_tensor_of(array: np.ndarray, place: Place = Place("test", 0)) -> DeviceTensor:  # noqa: B008
    return DeviceTensor(place, Bytes(array), array.shape, array.dtype)


@pytest.mark.parametrize("shape", [(5, 3), (5,), (4, 0), (0, 2), (3, 2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_rows_are_those_of_an_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> None:
    array = rng.integers(0, 100, shape).astype(dtype)
    whole = device_tensor_of(array)
    assert (whole.shape, whole.dtype, len(whole), whole.part) == (shape, dtype, shape[0], False)
    for rows in (slice(1, 3), slice(0, 1), slice(None), slice(-2, None), slice(3, 1), slice(2, 99)):
        for again in (slice(None), slice(1, 2)):
            part = whole[rows][again]
            assert part.shape == array[rows][again].shape
            assert part.nbytes == array[rows][again].nbytes
            assert part.dtype == dtype
            assert (part.numpy() == array[rows][again]).all()
            assert part.part == (len(part) < len(array))
            if part.nbytes:
                assert part.address == array[rows][again].ctypes.data
    with pytest.raises(ValueError, match="side by side: index what numpy"):
        whole[::2]


def test_what_is_kept_gives_the_same_answer(on_cpu: None, tiny_bundle: Path, prompts: dict[str, np.ndarray]) -> None:
    with open_session(tiny_bundle / "decoder.onnx", threads=1) as session:
        assert isinstance(session, OnnxRuntimeSession)
        assert session.place == Place("ONNX Runtime", 0)
        found = session.run(prompts, keep_on_device=("low_res_masks",))
        masks = found["low_res_masks"]
        expected = session._session.run(None, prompts)
        assert isinstance(found["pred_iou"], np.ndarray)
        assert masks.shape == (5, 3, 32, 32)
        assert (masks.numpy() == expected[0]).all()
        assert (found["pred_iou"] == expected[1]).all()
    assert (masks[2:4].numpy() == expected[0][2:4]).all()  # also after the session


def test_rows_are_fed_as_they_lie(on_cpu: None, tiny_bundle: Path, rng: np.random.Generator) -> None:
    """One session's output is another's input, in parts at every offset."""
    image = rng.integers(0, 256, (1, 32, 64, 3), np.uint8)
    coords = rng.uniform(0, 64, (7, 2, 2)).astype(np.float32)
    with (
        open_session(tiny_bundle / "encoder.onnx") as encoder,
        open_session(tiny_bundle / "decoder.onnx") as decoder,
    ):
        embeddings = encoder.run({"image": image}, keep_on_device=("image_embeddings",))["image_embeddings"]
        assert isinstance(decoder, OnnxRuntimeSession)
        assert decoder.place is not None
        points = DeviceTensor(decoder.place, Bytes(coords), coords.shape, coords.dtype)
        for first in range(7):
            feeds = {
                "image_embeddings": embeddings,
                "point_labels": np.ones((2, 2), np.float32)[: 7 - first],
                "mask_input": np.zeros((1, 1, 32, 32), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
            }
            ours = decoder.run({**feeds, "point_coords": points[first : first + 2]})
            host = {name: value.numpy() if isinstance(value, DeviceTensor) else value for name, value in feeds.items()}
            theirs = decoder._session.run(None, {**host, "point_coords": coords[first : first + 2]})
            assert (ours["low_res_masks"] == theirs[0]).all()


def test_arrays_that_are_not_in_order(on_cpu: None, tiny_bundle: Path, prompts: dict[str, np.ndarray]) -> None:
    with open_session(tiny_bundle / "decoder.onnx") as session:
        expected = session.run({**prompts, "point_coords": prompts["point_coords"][::-1].copy()})
        found = session.run({**prompts, "point_coords": prompts["point_coords"][::-1]})
    assert (found["low_res_masks"] == expected["low_res_masks"]).all()


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_cpu_keeps_arrays(tiny_bundle: Path, prompts: dict[str, np.ndarray], provider: str) -> None:
    with open_session(tiny_bundle / "decoder.onnx", provider) as session:
        found = session.run(prompts, keep_on_device=("low_res_masks",))
        assert isinstance(found["low_res_masks"], np.ndarray)
        with pytest.raises(NetworkError, match=r"no output logits to keep: it returns low_res_masks, pred_iou"):
            session.run(prompts, keep_on_device=("logits",))
        embeddings = device_tensor_of(prompts["image_embeddings"], Place("TensorRT", 1))
        with pytest.raises(NetworkError, match=r"lies on TensorRT's device 1, .* on the CPU: .*what numpy\(\) returns"):
            session.run({**prompts, "image_embeddings": embeddings})
        session.run({**prompts, "image_embeddings": embeddings.numpy()})


def test_what_is_kept_is_not_searched(on_cpu: None, tiny_bundle: Path, prompts: dict[str, np.ndarray]) -> None:
    prompts["point_labels"][:] = np.nan
    with open_session(tiny_bundle / "decoder.onnx") as session:
        masks = session.run(prompts, keep_on_device=("low_res_masks",))["low_res_masks"]
        assert np.isnan(masks.numpy()).any()
        with pytest.raises(NetworkError, match="NaN or infinity in low_res_masks"):
            session.run(prompts)


def test_the_pipeline_answers_as_with_arrays(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Embedding, shared tensors, state and kernels stay where they are, in every engine that has a device."""
    rgb = rng.integers(0, 256, (90, 120, 3), np.uint8)
    rgb[20:60, 30:70] = 250
    gates = {"pred_iou_thresh": 0.2, "stability_score_thresh": 0.0, "box_nms_thresh": 0.95}
    options = {"points_per_side": 6, "select": "off", **gates}
    recorders = {"arrays": Recorder(size=100), "device tensors": Recorder(size=100)}
    found: dict[str, Any] = {}
    fed: set[str] = set()
    infer = OnnxRuntimeSession._infer

    def watch(self: Any, feeds: Any, keep_on_device: Any) -> Any:
        fed.update(name for name, value in feeds.items() if isinstance(value, DeviceTensor))
        return infer(self, feeds, keep_on_device)

    monkeypatch.setattr(OnnxRuntimeSession, "_infer", watch)
    for how, recorder in recorders.items():
        if how == "device tensors":
            monkeypatch.setitem(DEVICE_MEMORY, "cpu", DeviceMemory("cpu", 64))
            assert not fed
        with SossPipeline(
            with_settings(open_bundle(DEMO), options), threads=2, wrap_session=recorder.wrap_session
        ) as pipeline:
            found[how] = pipeline(rgb)
    with Sessions(open_bundle(DEMO), threads=1) as sessions:
        decoder = open_decoder(sessions, open_bundle(DEMO).expect(SossManifest).sam)
        assert isinstance(decoder, SplitDecoder)
        assert fed == {"image_embeddings", *decoder._image_side.outputs, *decoder._state}
    ours, theirs = found.values()
    assert len(theirs.segments) > 3
    assert len(ours.segments) == len(theirs.segments)
    assert (ours.label == theirs.label).all()
    for role in ("encoder", *SPLIT_DECODER):
        for run in recorders["device tensors"].runs[role]:
            assert all(isinstance(value, np.ndarray) for value in (*run.feeds.values(), *run.outputs.values()))
        assert len(recorders["device tensors"].runs[role]) == len(recorders["arrays"].runs[role]) > 0


def test_a_batch_shares_the_embeddings_memory(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Each frame's embedding is some rows of what the encoder has left on the device for all of them."""
    frames = [rng.integers(0, 256, (90, 120, 3), np.uint8) for _ in range(3)]
    for index, rgb in enumerate(frames):
        rgb[20:60, 30 + 10 * index : 70] = 250
    gates = {"pred_iou_thresh": 0.2, "stability_score_thresh": 0.0, "box_nms_thresh": 0.95}
    options = {"points_per_side": 4, "select": "off", **gates}
    with SossPipeline(with_settings(open_bundle(DEMO), options), threads=2) as pipeline:
        expected = [pipeline(rgb) for rgb in frames]
    monkeypatch.setitem(DEVICE_MEMORY, "cpu", DeviceMemory("cpu", 64))
    parts: list[DeviceTensor] = []
    infer = OnnxRuntimeSession._infer

    def watch(self: Any, feeds: Any, keep_on_device: Any) -> Any:
        parts.extend(value for name, value in feeds.items() if name == "image_embeddings")
        return infer(self, feeds, keep_on_device)

    monkeypatch.setattr(OnnxRuntimeSession, "_infer", watch)
    with SossPipeline(with_settings(open_bundle(DEMO), options), threads=2) as pipeline:
        found = pipeline.batch(frames, [None] * 3)
    first, *_ = parts
    assert [part.offset for part in parts] == [index * first.nbytes for index in range(3)]
    assert all(part.memory is first.memory for part in parts)
    for ours, theirs in zip(found, expected, strict=True):
        assert isinstance(ours, Result)
        assert len(theirs.segments) > 1
        assert len(ours.segments) == len(theirs.segments)
        assert (ours.label == theirs.label).all()


def test_every_choice_of_masks(on_cpu: None, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device all three are drawn for a prompt that wants one; what is returned is the same."""
    bundle = open_bundle(DEMO)
    embeddings: Any = None
    wanted = np.array([[i & 1, i & 2, i & 4] for i in range(8)], np.bool_)
    coords = rng.uniform(0, 500, (8, 2, 2)).astype(np.float32)
    labels = np.tile(np.array([1, -1], np.float32), (8, 1))
    found = []
    for _ in range(2):
        with ExitStack() as stack:
            sessions = stack.enter_context(Sessions(bundle, threads=1))
            decoder = open_decoder(sessions, bundle.expect(SossManifest).sam)
            assert isinstance(decoder, SplitDecoder)
            if embeddings is None:
                embeddings = rng.standard_normal(decoder._image_side.inputs["image_embeddings"][1], np.float32)
            image = decoder.prepare(embeddings)
            prompted = decoder.prompt(image, coords, labels)
            found.append((prompted.pred_iou, *decoder.masks(image, prompted, wanted)))
            assert isinstance(prompted.state["kernels"], np.ndarray if len(found) == 2 else DeviceTensor)
        monkeypatch.delitem(DEVICE_MEMORY, "cpu", raising=False)
    ours, theirs = found
    assert (ours[0] == theirs[0]).all()
    assert ours[1].tolist() == theirs[1].tolist()
    assert np.abs(ours[2] - theirs[2]).max() < 1e-5 * np.abs(theirs[2]).max()


@pytest.mark.parametrize(
    ("provider", "cores", "expected"), [("cuda:1", 64, GPU_WORKERS), ("cuda", 2, 2), ("cpu", 64, 64)]
)
def test_a_gpu_has_few_callers(monkeypatch: pytest.MonkeyPatch, provider: str, cores: int, expected: int) -> None:
    opened = []

    def open_fake(path: Path, provider: str, threads: int | None, callers: int, *_: Any) -> Any:
        opened.append(callers)
        return open_session(path, threads=1)

    monkeypatch.setattr("maskrt.runtime.engines.loading.open_session", open_fake)
    monkeypatch.setattr("maskrt.runtime.sam.mask_decoder.usable_cpus", lambda: cores)
    with Sessions(open_bundle(DEMO), provider) as sessions:
        assert open_decoder(sessions, open_bundle(DEMO).expect(SossManifest).sam).workers == expected
    assert opened == [expected, expected, 1]
