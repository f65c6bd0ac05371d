"""How long what lies on a device is held: no longer than it is used, whatever fails."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import NetworkError
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.types import Result


def test_memory_goes_with_the_last_part(
    on_cpu: None, tiny_bundle: Path, prompts: dict[str, np.ndarray], no_collection: None
) -> None:
    """At once, by its references: no collection of cycles is needed."""
    with open_session(tiny_bundle / "decoder.onnx") as session:
        masks = session.run(prompts, keep_on_device=("low_res_masks",))["low_res_masks"]
        memory, part = weakref.ref(masks.memory), masks[1:2]
        del masks
        assert memory() is not None
        del part
        assert memory() is None


class Followed:
    """Watches the encoder's device tensors, and lets the decoder fail on the image that it is told."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at = fails_at
        self.memories: list[weakref.ref[Any]] = []
        self.alive: list[int] = []  # of those before, at each run of the encoder

    def watch(self, role: str, session: Any) -> Any:
        run, seen = session.run, []

        def encode(feeds: Any, check: Any = None, *, keep_on_device: Any = ()) -> Any:
            self.alive.append(sum(memory() is not None for memory in self.memories))
            found = run(feeds, check, keep_on_device=keep_on_device)
            self.memories.append(weakref.ref(found["image_embeddings"].memory))
            return found

        def decode(feeds: Any, check: Any = None, *, keep_on_device: Any = ()) -> Any:
            if (offset := feeds["image_embeddings"].offset) not in seen:
                seen.append(offset)
            if len(seen) - 1 == self.fails_at:
                raise NetworkError("decoder.onnx failed") from RuntimeError("the GPU fell off the bus")
            return run(feeds, check, keep_on_device=keep_on_device)

        session.run = {"encoder": encode, "decoder": decode}.get(role, run)
        return session


def test_no_embedding_is_held_while_the_next_are_made(
    on_cpu: None, tiny_bundle: Path, rng: np.random.Generator, no_collection: None
) -> None:
    """Nor would a lane of TensorRT get its outputs' memory back, and so never launch the same graph twice."""
    frames = [rng.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(2)]
    followed = Followed()
    with SossPipeline(
        with_settings(open_bundle(tiny_bundle), {"crop_n_layers": 1}), wrap_session=followed.watch
    ) as pipeline:
        pipeline(frames[0])  # when Numba compiles, it leaves a cycle
        followed.memories.clear()
        followed.alive.clear()
        pipeline.batch(frames, [None] * 2)
        pipeline(frames[0])
    assert followed.alive == [0] * 10  # the whole and four crops, twice


def test_errors_that_are_kept_hold_no_memory(
    on_cpu: None, tiny_bundle: Path, rng: np.random.Generator, no_collection: None
) -> None:
    frames = [rng.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(3)]
    followed = Followed(fails_at=1)
    with SossPipeline(open_bundle(tiny_bundle), wrap_session=followed.watch) as pipeline:
        first, error, third = pipeline.batch(frames, [None] * 3)
        assert isinstance(first, Result)
        assert isinstance(third, Result)
        assert isinstance(error, NetworkError)
        assert str(error) == "decoder.onnx failed"
        assert str(error.__cause__) == "the GPU fell off the bus"
        assert [memory() for memory in followed.memories] == [None]
    followed = Followed(fails_at=0)
    with SossPipeline(open_bundle(tiny_bundle), wrap_session=followed.watch) as pipeline:
        picture = frames[0].copy()
        held = weakref.ref(picture)
        with pytest.raises(NetworkError, match="failed"):
            pipeline(picture)
        assert [memory() for memory in followed.memories] == [None]
        del picture
        assert held() is None
