"""A batch of prompts that does not fit into memory is tried once more in halves, with the same answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrt.kernels import sets
from maskrt.kernels.low_res import Placement
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.errors import OutOfMemory
from maskrt.runtime.sam.candidates import Candidate, CandidateFinder
from maskrt.runtime.sam.mask_decoder import WholeDecoder
from maskrt.runtime.sam.prompts import point_grid

SIZE_HW = 48, 64


class Narrow:
    """A decoder session of a device with room for so many prompts."""

    def __init__(self, session: Any, room: int) -> None:
        self.inputs, self.outputs, self._session, self._room = session.inputs, session.outputs, session, room
        self.asked: list[int] = []

    def run(self, feeds: dict[str, Any], check: Any = None, *, keep_on_device: Any = ()) -> dict[str, Any]:
        self.asked.append(len(feeds["point_coords"]))
        if self.asked[-1] > self._room:
            raise OutOfMemory(f"decoder.onnx ran out of memory at {self.asked[-1]} prompts")
        return self._session.run(feeds, check, keep_on_device=keep_on_device)


@pytest.fixture
def session(tiny_bundle: Path) -> Iterator[Any]:
    with Sessions(open_bundle(tiny_bundle), threads=1) as sessions:
        yield sessions.load("decoder", repeated=True)


def found(bundle: Path, session: Any, points: int) -> tuple[list[Candidate], dict[str, float]]:
    """The candidates of the first points of a grid, in batches of 8."""
    manifest = open_bundle(bundle).expect(SossManifest)
    finder = CandidateFinder(WholeDecoder(session, manifest.sam), manifest.sam, manifest.masks, sets.CPU)
    embeddings = np.random.default_rng(0).standard_normal((1, 3, 4, 4), np.float32)
    points_xy = point_grid(5)[:points] * np.array(SIZE_HW[::-1])
    placement = Placement(manifest.sam.image_size, SIZE_HW, SIZE_HW)
    timings_ms: dict[str, float] = {}
    return finder.find(finder.prepare(embeddings), points_xy, placement, timings_ms), timings_ms


@pytest.mark.parametrize(
    ("room", "asked"),
    [(8, [8, 8, 3]), (4, [8, 4, 4, 8, 4, 4, 3]), (7, [8, 4, 4, 8, 4, 4, 3])],
)
def test_halves_give_the_same_answer(tiny_bundle: Path, session: Any, room: int, asked: list[int]) -> None:
    expected, _ = found(tiny_bundle, session, 19)
    narrow = Narrow(session, room)
    ours, timings_ms = found(tiny_bundle, narrow, 19)
    assert narrow.asked == asked
    assert set(timings_ms) == {"decoder", "masks"}
    assert len(ours) == len(expected) > 19
    for one, other in zip(ours, expected, strict=True):
        assert (one.box_xyxy == other.box_xyxy).all()
        assert (one.point_xy == other.point_xy).all()
        assert (one.pred_iou, one.stability_score) == (other.pred_iou, other.stability_score)


def test_halves_of_odd_batches(tiny_bundle: Path, session: Any) -> None:
    narrow = Narrow(session, 2)
    found(tiny_bundle, narrow, 3)
    assert narrow.asked == [3, 1, 2]


@pytest.mark.parametrize(("points", "room", "asked"), [(8, 3, [8, 4]), (1, 0, [1])])
def test_one_retry_and_no_more(tiny_bundle: Path, session: Any, points: int, room: int, asked: list[int]) -> None:
    narrow = Narrow(session, room)
    with pytest.raises(OutOfMemory, match=f"at {asked[-1]} prompts"):
        found(tiny_bundle, narrow, points)
    assert narrow.asked == asked


def test_it_is_an_error_of_one_frame() -> None:
    """A batch run goes on after it: the next frame's region may be smaller."""
    from maskrt.runtime.errors import NetworkError

    assert issubclass(OutOfMemory, NetworkError)
