"""TensorRtSession.refit_weights, and the engines of a bundle that is clicked on."""

import gc
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from refittable import Feeds, build
from safetensors.numpy import load_file, save
from tensorrt_standin.behaviour import check_plan
from tiny_bundle import IMAGE_SIZE, write_tiny_bundle

from maskrt.export.graph_tools.structure import structure_sha256
from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.bundle.manifest import InteractiveManifest, ModelEntry, SossManifest, encode_manifest
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.engine_build.builder import BuildSettings, EngineBuilder
from maskrt.runtime.engine_build.profiles import profile_of
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.tensorrt.session import TensorRtSession
from maskrt.runtime.errors import BundleError, NetworkError
from maskrt.runtime.files import sha256_of

WEIGHTS = ("quality", "squares")  # of the click decoder: its initializers that are inputs too


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    """A bundle of kind interactive: the tiny one, whose decoder's weights can be fed."""
    tiny = write_tiny_bundle(tmp_path / "tiny")
    folder = tmp_path / "clicks"
    folder.mkdir()
    decoder, sam = onnx.load(tiny / "decoder.onnx"), open_bundle(tiny).expect(SossManifest).sam
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in decoder.graph.initializer}
    for value in decoder.graph.input:
        sizes = value.type.tensor_type.shape.dim
        sizes[0].dim_value = 1  # a prompt at a time
    for name in WEIGHTS:
        decoder.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, arrays[name].shape))
    onnx.checker.check_model(decoder)
    (folder / "encoder.onnx").write_bytes((tiny / "encoder.onnx").read_bytes())
    for role in ("click_decoder", "step"):  # what the step computes plays no part here
        onnx.save(decoder, folder / f"{role}.onnx")
    (folder / "weights.safetensors").write_bytes(save({name: arrays[name].copy() for name in WEIGHTS}))
    files = {file.stem: file for file in folder.iterdir()}
    entries = {
        role: ModelEntry(
            file.name,
            sha256_of(file),
            file.stat().st_size,
            "tests",
            "0" * 64,
            structure_sha256=structure_sha256(file) if file.suffix == ".onnx" else "",
        )
        for role, file in files.items()
    }
    manifest = InteractiveManifest(schema=3, maskrt="0.1.0", precision="fp32", opset=17, models=entries, sam=sam)
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return folder


@pytest.fixture
def exported(tiny_interactive: tuple[Path, tuple[str, ...]], tmp_path: Path) -> Path:
    """The bundle of an exported SAM, to build engines in."""
    return Path(shutil.copytree(tiny_interactive[0], tmp_path / "exported"))


@pytest.fixture
def prompt(feeds: Feeds) -> Feeds:
    """One of the five."""
    return {name: value[:1] for name, value in feeds.items()}


@pytest.fixture
def session(tensorrt_device: Any, clicks: Path) -> Iterator[TensorRtSession]:
    build(clicks, role="click_decoder")
    with TensorRtSession(clicks / "click_decoder.onnx", callers=3) as session:
        yield session


@pytest.fixture
def learnt(rng: np.random.Generator) -> Feeds:
    """Weights that the click decoder might have learnt."""
    return {
        "squares": rng.uniform(4, 200, (1, 3, 1, 1)).astype(np.float32),
        "quality": rng.uniform(0, 1, (1, 3)).astype(np.float32),
    }


def on_cpu(bundle: Path, feeds: Feeds, weights: Feeds | None = None) -> dict[str, np.ndarray]:
    with open_session(bundle / "click_decoder.onnx") as session:
        return session.run({**feeds, **(weights or {})})


def same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
    return set(ours) == set(theirs) and all(np.allclose(ours[name], theirs[name], atol=1e-3) for name in ours)


def test_weights_from_memory(tensorrt_machine: Any, clicks: Path, prompt: Feeds, learnt: Feeds) -> None:
    """They are not inputs of the engine; ONNX Runtime, whose they are, says what it has to answer."""
    build(clicks, role="click_decoder")
    with TensorRtSession(clicks / "click_decoder.onnx") as session:
        assert set(session.inputs) == set(prompt)
        base = on_cpu(clicks, prompt)
        assert same(session.run(prompt), base)
        for step in range(3):
            weights = {name: value + np.float32(step) for name, value in learnt.items()}
            session.refit_weights(weights)
            expected = on_cpu(clicks, prompt, weights)
            assert not same(expected, base)
            for _ in range(4):  # an ordinary run, one that is captured as a graph, and launches of it
                assert same(session.run(prompt), expected)
        if tensorrt_machine is not None:
            assert (tensorrt_machine.refitted, tensorrt_machine.most_contexts) == (3, 1)
    with TensorRtSession(clicks / "click_decoder.onnx") as session:  # the engine on disk is what it was
        assert same(session.run(prompt), base)


def test_weights_that_are_not_named_stay(session: TensorRtSession, clicks: Path, prompt: Feeds, learnt: Feeds) -> None:
    session.refit_weights({"squares": learnt["squares"]})
    assert same(session.run(prompt), on_cpu(clicks, prompt, {"squares": learnt["squares"]}))
    session.refit_weights({"quality": learnt["quality"]})
    assert same(session.run(prompt), on_cpu(clicks, prompt, learnt))
    session.refit(clicks / "click_decoder.onnx")  # and a file has them all
    assert same(session.run(prompt), on_cpu(clicks, prompt))


def test_arrays_in_another_order(
    session: TensorRtSession, clicks: Path, prompt: Feeds, rng: np.random.Generator
) -> None:
    """The copy in C order is TensorRT's until it is set, whatever is collected."""
    wide = rng.uniform(4, 200, (1, 6, 1, 1)).astype(np.float32)[:, ::2]
    assert not wide.flags.c_contiguous
    session.refit_weights({"squares": wide, "quality": np.arange(3, dtype=np.float32)[None]})
    gc.collect()
    expected = on_cpu(clicks, prompt, {"squares": wide.copy(), "quality": np.arange(3, dtype=np.float32)[None]})
    assert same(session.run(prompt), expected)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": (
        {"circles": np.ones(3, np.float32)},
        r"click_decoder\.onnx: its engine has no weights circles: leave them out, or export the bundle again and run",
    ),
    "count": (
        {"squares": np.ones((1, 4, 1, 1), np.float32)},
        r"weights squares are float32 \[1, 4, 1, 1\], its engine takes 3 of type FLOAT: give float32 weights",
    ),
    "none": ({"quality": np.ones((1, 0), np.float32)}, r"quality are float32 \[1, 0\], its engine takes 3"),
    "type": ({"quality": np.ones((1, 3))}, r"quality are float64 \[1, 3\], its engine takes 3 of type FLOAT"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_do_not_fit_change_nothing(
    session: TensorRtSession, tensorrt_device: Any, prompt: Feeds, learnt: Feeds, case: str
) -> None:
    wrong, reason = REFUSED[case]
    before = session.run(prompt)
    with pytest.raises(NetworkError, match=reason):
        session.refit_weights({**learnt, **wrong})
    assert same(session.run(prompt), before)
    assert tensorrt_device.refitted == 0
    session.refit_weights(learnt)
    assert not same(session.run(prompt), before)


def test_weights_that_the_builder_has_merged(
    session: TensorRtSession, tensorrt_device: Any, clicks: Path, prompt: Feeds, learnt: Feeds
) -> None:
    tensorrt_device.withheld.add("quality")
    before = session.run(prompt)
    with pytest.raises(NetworkError, match="has merged quality with given weights: give them too"):
        session.refit_weights({"squares": learnt["squares"]})
    assert same(session.run(prompt), before)
    session.refit_weights(learnt)
    assert same(session.run(prompt), on_cpu(clicks, prompt, learnt))


def test_what_tensorrt_itself_refuses(
    monkeypatch: pytest.MonkeyPatch, session: TensorRtSession, prompt: Feeds, learnt: Feeds
) -> None:
    before = session.run(prompt)
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["tensorrt"].Refitter, "set_named_weights", lambda *_: False)
        with pytest.raises(NetworkError, match=r"click_decoder\.onnx: TensorRT refuses the weights squares"):
            session.refit_weights(learnt)
    assert same(session.run(prompt), before)


def test_weights_that_were_set_in_part_close_the_session(
    session: TensorRtSession, clicks: Path, prompt: Feeds, learnt: Feeds
) -> None:
    before = session.run(prompt)
    with pytest.raises(
        NetworkError, match="weights quality hold NaN or infinity: the session is closed, open it again"
    ):
        session.refit_weights({**learnt, "quality": np.full((1, 3), np.inf, np.float32)})
    for use in (lambda: session.run(prompt), lambda: session.refit_weights(learnt)):
        with pytest.raises(NetworkError, match="the session is closed"):
            use()
    with TensorRtSession(clicks / "click_decoder.onnx") as again:
        assert same(again.run(prompt), before)


def test_callers_that_run_meanwhile(
    session: TensorRtSession, tensorrt_device: Any, clicks: Path, prompt: Feeds, learnt: Feeds
) -> None:
    """Every answer is that of the one or the other weights."""
    other = {name: value + np.float32(1) for name, value in learnt.items()}
    either, stop = [on_cpu(clicks, prompt, weights) for weights in (learnt, other)], threading.Event()
    session.refit_weights(learnt)

    def call() -> list[tuple[bool, ...]]:
        found = []
        while not stop.is_set():
            value = session.run(prompt)
            found.append(tuple(same(value, each) for each in either))
        return found

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call) for _ in range(4)]
        try:
            for weights in (other, learnt) * 5:
                session.refit_weights(weights)
            assert same(session.run(prompt), either[0])
        finally:
            stop.set()
        seen = {pair for each in calls for pair in each.result(60)}
    assert seen
    assert seen <= {(True, False), (False, True)}
    assert tensorrt_device.refitted == 11
    assert tensorrt_device.most_contexts <= 3


def test_an_engine_that_takes_no_weights(tensorrt_device: Any, clicks: Path, learnt: Feeds) -> None:
    build(clicks, role="encoder")
    with (
        TensorRtSession(clicks / "encoder.onnx") as session,
        pytest.raises(BundleError, match=r"encoder\.onnx: its engine was not built to be refitted"),
    ):
        session.refit_weights(learnt)


def test_the_engines_of_a_bundle_that_is_clicked_on(tensorrt_device: Any, clicks: Path, maskrt: Any) -> None:
    code, told, _ = maskrt("build", clicks, "--engine", "tensorrt", "--set", "click_adaptation=C")
    assert code == 0
    engines = dict(re.findall(r"^  (\w+): built: (\S+)$", told, re.MULTILINE))
    assert set(engines) == {"encoder", "click_decoder"}
    plans = {role: check_plan(Path(engine)) for role, engine in engines.items()}
    assert {role: plan.flags for role, plan in plans.items()} == {"encoder": [], "click_decoder": ["REFIT"]}
    points = {"point_coords": [[1, 1, 2], [1, 2, 2], [1, 64, 2]], "point_labels": [[1, 1], [1, 2], [1, 64]]}
    assert plans["click_decoder"].profile == points
    side = [1, IMAGE_SIZE, IMAGE_SIZE, 3]
    assert plans["encoder"].profile == {"image": [[1, 1, 1, 3], side, side]}
    code, told, _ = maskrt("build", clicks, "--engine", "tensorrt")
    assert (code, told.count(": found: ")) == (0, 2)  # how it learns does not change its engines
    assert maskrt("build", clicks, "--engine", "tensorrt", "--set", "tile=64")[0] == 2


@pytest.mark.parametrize("points", [1, 2, 64, 65])
def test_as_many_points_as_its_profile_has(
    session: TensorRtSession, clicks: Path, prompt: Feeds, rng: np.random.Generator, points: int
) -> None:
    prompt |= {
        "point_coords": rng.uniform(0, IMAGE_SIZE, (1, points, 2)).astype(np.float32),
        "point_labels": np.ones((1, points), np.float32),
    }
    if points <= 64:
        assert same(session.run(prompt), on_cpu(clicks, prompt))
    else:
        with pytest.raises(NetworkError, match=r"its engine takes \(1, 1, 2\) to \(1, 64, 2\)"):
            session.run(prompt)


def test_another_bundles_decoder_is_refitted(tensorrt_device: Any, clicks: Path, tmp_path: Path) -> None:
    """As that of any SAM: maskrt build --refit-from."""
    older = clicks.rename(tmp_path / "older")
    newer = tmp_path / "newer"
    newer.mkdir()
    for file in older.iterdir():
        (newer / file.name).write_bytes(file.read_bytes())
    build(older, role="click_decoder")
    assert build(newer, older, role="click_decoder").how == "refitted"


def test_the_encoders_of_two_kinds_have_one_profile(clicks: Path, tiny_bundle: Path) -> None:
    bundles = [open_bundle(path) for path in (clicks, tiny_bundle)]
    images = {"image": (-1, -1, -1, 3)}
    assert len({str(profile_of(bundle, "encoder", images)) for bundle in bundles}) == 1


def test_settings_of_a_bundle_that_is_clicked_on(tensorrt_device: Any, clicks: Path) -> None:
    bundle = with_settings(open_bundle(clicks), {"click_adaptation": "C"})
    assert bundle.expect(InteractiveManifest).adaptation.click_adaptation == "C"
    assert set(EngineBuilder(bundle, BuildSettings()).roles) == {"encoder", "click_decoder"}
    with pytest.raises(BundleError, match=r"there is no setting points_per_batch: .*, of kind interactive, has these"):
        with_settings(open_bundle(clicks), {"points_per_batch": 2})


def test_the_click_decoder_of_an_exported_sam(tensorrt_machine: Any, exported: Path, rng: np.random.Generator) -> None:
    """Every weight that is learnt has its name in the engine, and takes what ONNX Runtime is fed with."""
    build(exported, role="click_decoder")
    path = exported / "click_decoder.onnx"
    base = load_file(exported / "weights.safetensors")
    learnt = {name: value * rng.uniform(0.9, 1.1, value.shape).astype(np.float32) for name, value in base.items()}
    with open_session(path) as cpu, TensorRtSession(path) as session:
        assert (session.inputs, set(cpu.optional)) == (cpu.inputs, set(base))
        shapes = {name: [2 if size is None else size for size in shape] for name, (_, shape) in cpu.inputs.items()}
        feeds = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
        feeds |= {"point_coords": rng.uniform(0, 64, (1, 2, 2)).astype(np.float32)}
        feeds |= {"point_labels": np.array([[1, 0]], np.float32), "has_mask_input": np.ones(1, np.float32)}
        before = cpu.run(feeds)
        for weights in (learnt, base):
            session.refit_weights(weights)
            assert same(session.run(feeds), cpu.run({**feeds, **weights}))
        assert not same(cpu.run({**feeds, **learnt}), before)
