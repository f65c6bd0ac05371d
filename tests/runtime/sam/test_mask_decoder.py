"""The decoder in one graph: what the runtime gives it, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.bundle.specs import SamSpec
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.sam.mask_decoder import WholeDecoder, open_decoder

SIDE = 8


class Recorder:
    """A session that keeps what it is fed."""

    def __init__(self, *without: str) -> None:
        names = "image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input"
        self.inputs: dict[str, Any] = dict.fromkeys(name for name in names if name not in without)
        self.outputs: dict[str, Any] = dict.fromkeys(("low_res_masks", "pred_iou"))
        self.fed: dict[str, Any] = {}

    def run(self, feeds, check=None, *, keep_on_device=()):
        self.fed, count = feeds, len(feeds["point_coords"])
        return {"low_res_masks": np.zeros((count, 3, SIDE, SIDE), np.float32), "pred_iou": np.zeros((count, 3))}


def prompt(session: Recorder, mask_input, prompts: int = 3, points: int = 2):
    decoder = WholeDecoder(session, SamSpec(32, (SIDE, SIDE)))  # type: ignore[arg-type]
    coords, labels = np.zeros((prompts, points, 2), np.float32), np.zeros((prompts, points), np.float32)
    return decoder.prompt(decoder.prepare(np.zeros((1, 4, 2, 2), np.float32)), coords, labels, mask_input=mask_input)


def test_without_a_mask():
    session = Recorder()
    prompt(session, None)
    assert set(session.fed) == set(session.inputs)
    assert session.fed["mask_input"].shape == (1, 1, SIDE, SIDE)
    assert session.fed["mask_input"].dtype == session.fed["has_mask_input"].dtype == np.float32
    assert session.fed["has_mask_input"].tolist() == [0]


@pytest.mark.parametrize(("masks", "points"), [(1, 2), (3, 2), (1, 0), (3, 0)])
def test_with_masks(masks, points):
    session, mask = Recorder(), np.ones((masks, 1, SIDE, SIDE), np.float32)
    assert prompt(session, mask, points=points).pred_iou.shape == (3, 3)
    assert session.fed["mask_input"] is mask
    assert session.fed["has_mask_input"].tolist() == [1]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((SIDE, SIDE), np.float32),
        ((1, SIDE, SIDE), np.float32),
        ((2, 1, SIDE, SIDE), np.float32),
        ((0, 1, SIDE, SIDE), np.float32),
        ((3, 3, SIDE, SIDE), np.float32),
        ((1, 1, SIDE, 2 * SIDE), np.float32),
        ((1, 1, 4 * SIDE, 4 * SIDE), np.float32),
        ((1, 1, SIDE, SIDE), np.float64),
        ((1, 1, SIDE, SIDE), np.bool_),
    ],
)
def test_masks_of_another_kind_are_refused(shape, dtype):
    session = Recorder()
    with pytest.raises(InputError, match=r"mask_input is .*: give low-res logits, float32 \[1, 1, 8, 8\]") as caught:
        prompt(session, np.zeros(shape, dtype))
    assert "\n" not in str(caught.value)
    assert not session.fed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_masks_that_are_not_finite_are_refused(value):
    session, mask = Recorder(), np.zeros((3, 1, SIDE, SIDE), np.float32)
    mask[2, 0, 1, 1] = value
    with pytest.raises(InputError, match="mask_input holds NaN or infinity"):
        prompt(session, mask)
    assert not session.fed


def test_a_decoder_from_before_masks_is_refused():
    with pytest.raises(BundleError, match=r"the decoder takes .*; expected .*mask_input.*: export the bundle again"):
        WholeDecoder(Recorder("mask_input", "has_mask_input"), SamSpec(32, (SIDE, SIDE)))


def test_a_bundle_opens_for_masks(tiny_bundle: Path):
    with Sessions(open_bundle(tiny_bundle), threads=1) as sessions:
        decoder = open_decoder(sessions, open_bundle(tiny_bundle).expect(SossManifest).sam, split=False)
        assert isinstance(decoder, WholeDecoder)
        image = decoder.prepare(np.zeros((1, 3, 4, 4), np.float32))
        coords, labels = np.full((2, 1, 2), 30, np.float32), np.ones((2, 1), np.float32)
        mask = np.ones((2, 1, 32, 32), np.float32)
        found = [decoder.prompt(image, coords, labels, mask_input=given).pred_iou for given in (None, mask, mask[:1])]
        assert found[0].shape == (2, 3)
        assert (found[0] == found[1]).all()
        assert (found[0] == found[2]).all()
