"""The pipeline as a whole: several frames at a time, and how many threads it takes."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle

from maskrt.kernels import sets
from maskrt.kernels.jit import thread_limit
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.errors import BundleError, InputError, NetworkError, NotFinite, OutOfMemory
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.types import Frame, Result


@pytest.mark.parametrize("threads", [1, None])
def test_threads_bound_the_kernels(tiny_bundle, threads):
    """Those that the calling thread starts; the others run in the pool of the decoder, one thread each."""
    seen = {}

    def counted(name):
        def kernel(*arguments):
            seen[name] = numba.get_num_threads()
            return getattr(sets.CPU, name)(*arguments)

        return kernel

    kernels = KernelSet(**{field.name: counted(field.name) for field in fields(KernelSet)})
    usual = numba.get_num_threads()
    with SossPipeline(open_bundle(tiny_bundle), threads=threads, kernels=kernels) as pipeline:
        pipeline(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    assert {seen[name] for name in ("resize_bilinear", "count_votes", "paint")} == {threads or usual}
    assert numba.get_num_threads() == usual


def test_thread_limit_ends_with_its_block():
    usual = numba.get_num_threads()
    with thread_limit(10 * usual):
        assert numba.get_num_threads() == usual
    with thread_limit(1):
        assert numba.get_num_threads() == 1
    with pytest.raises(KeyError), thread_limit(1):
        raise KeyError
    assert numba.get_num_threads() == usual


class Meddling:
    """Watches the sessions of a pipeline, and lets one of them fail as it is told."""

    def __init__(self, role: str = "", fails: Callable[[np.ndarray], Exception | None] = lambda feed: None) -> None:
        self.role, self.fails = role, fails
        self.batches: dict[str, list[int]] = {"segmenter": [], "encoder": [], "decoder": []}

    def watch(self, role: str, session: Any) -> Any:
        run = session.run

        def watched(feeds: Any, check: Any = None, *, keep_on_device: Any = ()) -> Any:
            feed = next(iter(feeds.values()))
            self.batches[role].append(len(feed))
            error = self.fails(feed) if role == self.role else None
            if error is not None:
                raise error
            return run(feeds, check, keep_on_device=keep_on_device)

        session.run = watched
        return session


SIZES_HW = [(60, 80), (33, 90), (60, 80), (120, 160), (1, 1), (90, 33)]


@pytest.fixture
def frames(rng: np.random.Generator) -> list[np.ndarray]:
    """Frames of mixed sizes, each with a bright block somewhere; three of them have one size for the encoder."""
    found = []
    for height, width in SIZES_HW:
        rgb = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
        y, x = rng.integers(0, height // 2 + 1), rng.integers(0, width // 2 + 1)
        rgb[y : y + height // 2, x : x + width // 2] += 130
        found.append(rgb)
    return found


def check_equal(found: Any, expected: Result) -> None:
    """The same run lengths, labels and classes; probabilities up to the roundings of a batch."""
    assert found.segments.rles == expected.segments.rles
    assert (found.label == expected.label).all()
    assert (found.mask == expected.mask).all()
    assert found.segment_classes.tolist() == expected.segment_classes.tolist()
    assert found.roi_xywh == expected.roi_xywh
    assert np.abs(found.probability - expected.probability).max() < 1e-6
    assert set(found.timings_ms) == set(expected.timings_ms)


@pytest.mark.parametrize(
    "options", [{}, {"prompts": "guided"}, {"crop_n_layers": 1, "stability_score_thresh": 0.5}, {"points_per_batch": 3}]
)
def test_a_batch_answers_what_each_frame_gets(
    tiny_bundle: Path, frames: list[np.ndarray], options: dict[str, Any]
) -> None:
    rois = [None, (10, 3, 50, 30), (20, 10, 40, 40), None, None, (0, 0, 33, 40)]
    watched = Meddling()
    with (
        SossPipeline(with_settings(open_bundle(tiny_bundle), options)) as each,
        SossPipeline(with_settings(open_bundle(tiny_bundle), options), wrap_session=watched.watch) as pipeline,
    ):
        expected = [each(rgb, roi) for rgb, roi in zip(frames, rois, strict=True)]
        found = pipeline.batch([Frame(rgb) for rgb in frames], rois)
    assert watched.batches["segmenter"] == [6]
    # 60 x 80 and 120 x 160 are 48 x 64 for the encoder, as whole frames; 40 x 40 and 1 x 1 are 64 x 64.
    assert sorted(watched.batches["encoder"][:4]) == [1, 1, 2, 2]
    assert max(watched.batches["encoder"]) <= 6
    assert sum(len(result.segments) for result in expected) > 30
    for ours, theirs in zip(found, expected, strict=True):
        check_equal(ours, theirs)


def test_no_frames(tiny_bundle: Path) -> None:
    watched = Meddling()
    with SossPipeline(open_bundle(tiny_bundle), wrap_session=watched.watch) as pipeline:
        assert pipeline.batch([], []) == []
    assert not any(watched.batches.values())


def test_a_segmenter_of_one_picture_gets_one_at_a_time(tmp_path: Path, frames: list[np.ndarray]) -> None:
    watched = Meddling()
    bundle = open_bundle(write_tiny_bundle(tmp_path / "one", segmenter_batch=1))
    with SossPipeline(bundle, wrap_session=watched.watch) as pipeline:
        found = pipeline.batch(frames, [None] * 6)
        assert watched.batches["segmenter"] == [1] * 6
        for result, rgb in zip(found, frames, strict=True):
            check_equal(result, pipeline(rgb))


def test_an_encoder_of_one_picture_is_of_an_older_bundle(tiny_bundle: Path) -> None:
    def older(role: str, session: Any) -> Any:
        if role == "encoder":
            session.inputs = {"image": ("tensor(uint8)", (None, None, 3))}
        return session

    with pytest.raises(
        BundleError, match=r"takes one picture \[h, w, 3\], not a batch of them: export the bundle again"
    ):
        SossPipeline(open_bundle(tiny_bundle), wrap_session=older)


def test_frames_that_cannot_be_segmented_do_not_cost_the_others(tiny_bundle: Path, frames: list[np.ndarray]) -> None:
    pictures = [frames[0], frames[1].astype(np.float32), frames[2], frames[3][:, :, 0]]
    with SossPipeline(open_bundle(tiny_bundle)) as pipeline:
        found = pipeline.batch(pictures, [None, None, (0, 0, 81, 1), None])
        check_equal(found[0], pipeline(frames[0]))
        for error, rgb, roi, reason in zip(
            found[1:], pictures[1:], (None, (0, 0, 81, 1), None), ("float32", "does not lie in", "RGB"), strict=True
        ):
            assert isinstance(error, InputError)
            assert reason in str(error)
            with pytest.raises(InputError, match=reason):
                pipeline(rgb, roi)


@pytest.mark.parametrize(
    ("role", "failure"), [("segmenter", NotFinite), ("encoder", NotFinite), ("segmenter", BundleError)]
)
def test_what_one_frame_causes_is_its_error(
    tiny_bundle: Path, frames: list[np.ndarray], role: str, failure: type[Exception]
) -> None:
    """A batch is known to hold a NaN, or a size that does not fit, but not where: each frame is asked alone."""
    bad = np.full((60, 80, 3), 255, np.uint8)

    def fails_on_white(feed: np.ndarray) -> Exception | None:
        white = 255 if role == "encoder" else 1
        return failure(f"{role}.onnx returned NaN") if any(one.min() == white for one in feed) else None

    several = [frames[0], bad, frames[2]]
    with SossPipeline(open_bundle(tiny_bundle), wrap_session=Meddling(role, fails_on_white).watch) as pipeline:
        first, error, third = pipeline.batch(several, [None] * 3)
        assert isinstance(error, failure)
        with pytest.raises(failure):
            pipeline(bad)
    with SossPipeline(open_bundle(tiny_bundle)) as pipeline:
        check_equal(first, pipeline(frames[0]))
        check_equal(third, pipeline(frames[2]))


def test_a_decoder_that_fails_on_one_frame(tiny_bundle: Path, frames: list[np.ndarray]) -> None:
    calls = []

    def fails_on_the_second(feed: np.ndarray) -> Exception | None:
        calls.append(feed)
        return OutOfMemory("decoder.onnx ran out of memory") if 3 <= len(calls) <= 4 else None

    # One worker and two batches of prompts a frame: the third call and its first half are the second frame's.
    meddling = Meddling("decoder", fails_on_the_second)
    with SossPipeline(open_bundle(tiny_bundle), wrap_session=meddling.watch) as pipeline:
        first, error, third = pipeline.batch(frames[:3], [None] * 3)
        assert isinstance(error, OutOfMemory)
        check_equal(first, pipeline(frames[0]))
        check_equal(third, pipeline(frames[2]))


@pytest.mark.parametrize("role", ["segmenter", "encoder"])
def test_a_batch_that_does_not_fit_is_halved_once(tiny_bundle: Path, frames: list[np.ndarray], role: str) -> None:
    def most(count: int) -> Callable[[np.ndarray], Exception | None]:
        return lambda feed: OutOfMemory(f"{role}.onnx ran out of memory") if len(feed) > count else None

    five = [frames[0]] * 3 + [frames[2]] * 2
    halving = Meddling(role, most(3))
    with SossPipeline(open_bundle(tiny_bundle), wrap_session=halving.watch) as pipeline:
        found = pipeline.batch(five, [None] * 5)
        assert halving.batches[role] == [5, 2, 3]
        for result, rgb in zip(found, five, strict=True):
            check_equal(result, pipeline(rgb))
    failing = Meddling(role, most(2))
    with SossPipeline(open_bundle(tiny_bundle), wrap_session=failing.watch) as pipeline:
        with pytest.raises(OutOfMemory, match="ran out of memory"):
            pipeline.batch(five, [None] * 5)
        assert failing.batches[role] == [5, 2, 3]


def test_other_failures_are_those_of_the_batch(tiny_bundle: Path, frames: list[np.ndarray]) -> None:
    """As an engine that was built for fewer: asking frame by frame would hide that it was not built for this."""
    meddling = Meddling("encoder", lambda feed: NetworkError("encoder.onnx failed") if len(feed) > 1 else None)
    with SossPipeline(open_bundle(tiny_bundle), wrap_session=meddling.watch) as pipeline:
        with pytest.raises(NetworkError, match="failed"):
            pipeline.batch([frames[0]] * 2, [None] * 2)
        assert isinstance(pipeline(frames[0]), Result)


def test_an_encoder_that_drops_an_image(tiny_bundle: Path, frames: list[np.ndarray]) -> None:
    def shortened(role: str, session: Any) -> Any:
        run = session.run
        if role == "encoder":
            session.run = lambda feeds, keep_on_device: {name: value[:1] for name, value in run(feeds).items()}
        return session

    with SossPipeline(open_bundle(tiny_bundle), wrap_session=shortened) as pipeline:
        assert isinstance(pipeline(frames[0]), Result)
        with pytest.raises(NetworkError, match="returned 1 embeddings of 2: export again"):
            pipeline.batch([frames[0]] * 2, [None] * 2)
