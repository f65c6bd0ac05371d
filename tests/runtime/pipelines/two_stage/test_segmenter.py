"""Both stages against plain NumPy, and what the networks may be."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_two_stage import plain_two_stage
from tiny_two_stage import Network, level, spec_of, write_tiny_two_stage

from maskrt.kernels import sets
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import TwoStageManifest
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec
from maskrt.runtime.errors import BundleError, InputError, NetworkError, OutOfMemory
from maskrt.runtime.pipelines.two_stage.network import MAX_PICTURES, StageNetwork, at_a_time, log_odds, probabilities
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline
from maskrt.runtime.pipelines.two_stage.segmenter import TwoStageSegmenter

# Of a bundle: one logit or two, more classes, grey, sides that do not divide, another shrink.
KINDS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "sigmoid": {"logits": 1},
    "four classes": {"classes": 4},
    "grey": {"channels": 1, "logits": 1},
    "shrunk by 5": {"shrink": 5, "size": 160, "patch_selection": PatchSelectionSpec(patches=5)},
    "multiples of 8": {"multiple": 8, "size": 120, "patch_selection": PatchSelectionSpec(patches=3)},
    "square": {"fit": "square"},
    "square by 5": {"fit": "square", "shrink": 5, "size": 160, "patch_selection": PatchSelectionSpec(patches=5)},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {},
    "logits": {"rank": "logit"},
    "one": {"patch_count": 1},
    "third": {"patch_fraction": 1 / 3},
    "uncertainty": {"uncertainty": 0.2},
    "all": {"patch_fraction": 1.0},
    "off": {"windows": "off"},
}
# Larger and smaller than the working picture, of its size, tall, thin, and a single pixel.
SIZES = [(190, 301), (61, 47), (96, 128), (300, 40), (3, 200), (1, 1)]


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Flat squares with noise, so that patches differ."""
    squares = rng.integers(0, 256, (height // 23 + 1, width // 23 + 1, 3)).repeat(23, axis=0).repeat(23, axis=1)
    noisy = squares[:height, :width] + rng.integers(-20, 21, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("two_stage")
    return {name: write_tiny_two_stage(folder / name, **kind) for name, kind in KINDS.items()}


@pytest.mark.parametrize(
    ("kind", "name"), [both for both in product(KINDS, SETTINGS) if both != ("four classes", "logits")]
)
def test_the_answer_is_the_plain_one(bundles: dict[str, Path], rng: np.random.Generator, kind: str, name: str) -> None:
    settings = SETTINGS[name]
    spec = open_bundle(bundles[kind]).expect(TwoStageManifest)
    looked = 0
    with TwoStagePipeline(with_settings(open_bundle(bundles[kind]), settings)) as pipeline:
        side = spec.two_stage.size // pipeline.settings.patches
        for height, width in SIZES:
            rgb = picture(rng, height, width)
            expected, patches = plain_two_stage(bundles[kind], rgb, **settings)
            (look,) = pipeline.segmenter.look([rgb], {})
            assert look.probabilities.dtype == np.float32
            # The places that a resize reads are float32: near a sharp edge a pixel 300 from the left is off by 1e-5.
            np.testing.assert_allclose(look.probabilities, expected, rtol=0, atol=5e-5)
            working = look.stages.working_hw
            corners = [
                (int(i * side * height / working[0] + 0.5), int(j * side * width / working[1] + 0.5))
                for i, j in (patches if name != "off" else [])
            ]
            assert [(top, left) for left, top, _, _ in look.stages.windows_xywh] == corners
            looked += len(corners)
    assert (looked > 0) == (name != "off")


@pytest.mark.parametrize("windows", ["grid", "sliding"])
@pytest.mark.parametrize("kind", ["sigmoid", "four classes"])
def test_plain_kernels_patch_by_patch_agree(
    bundles: dict[str, Path], rng: np.random.Generator, kind: str, windows: str
) -> None:
    bundle, options = open_bundle(bundles[kind]), {"windows": windows}
    regions = [picture(rng, *size_hw) for size_hw in SIZES]
    with (
        TwoStagePipeline(with_settings(bundle, options)) as fast,
        TwoStagePipeline(with_settings(bundle, options), kernels=sets.REFERENCE, one_by_one=True) as plain,
    ):
        together = fast.segmenter.look(regions, {})
        for region, ours, theirs in zip(regions, together, plain.segmenter.look(regions, {}), strict=True):
            assert ours.stages == theirs.stages
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=0, atol=1e-6)
            (alone,) = fast.segmenter([region])
            np.testing.assert_allclose(ours.probabilities, alone, rtol=0, atol=1e-6)
        (first,) = fast.segmenter.first_stage()(regions[:1])
        (off,) = TwoStageSegmenter(
            *fast.segmenter._sessions, bundle.expect(TwoStageManifest).two_stage, PatchSelectionSpec(4, windows="off")
        )(regions[:1])
        np.testing.assert_array_equal(first, off)
        assert np.abs(first - together[0].probabilities).max() > 0.1


def segmenter(low: Any, high: Any, spec: Any = None, **settings: Any) -> TwoStageSegmenter:
    return TwoStageSegmenter(low, high, spec or spec_of(size=128), PatchSelectionSpec(**{"patches": 4, **settings}))


def test_all_patches_of_all_regions_are_one_call(rng: np.random.Generator) -> None:
    low, high = Network(level(0)), Network(level(1))
    regions = [picture(rng, *size_hw) for size_hw in ((128, 128), (64, 128), (128, 128), (70, 70))]
    looks = segmenter(low, high).look(regions, {})
    # Stage 1 sees 16 x 16 and 8 x 16, both padded to 32.
    assert low.shapes == [(4, 3, 32, 32)]
    assert high.shapes == [(16, 3, 32, 32)]
    assert [len(look.stages.windows_xywh) for look in looks] == [4, 4, 4, 4]


def test_calls_are_bounded(rng: np.random.Generator) -> None:
    assert [at_a_time(side) for side in (32, 128, 512, 1024, 4096)] == [MAX_PICTURES, MAX_PICTURES, 4, 1, 1]
    high = Network(level(1))
    regions = [picture(rng, 128, 128) for _ in range(5)]
    segmenter(Network(level(0)), high, patch_fraction=1.0)(regions)
    assert [shape[0] for shape in high.shapes] == [64, 16]
    fixed = Network(level(1), (1, 3, 32, 32))
    segmenter(Network(level(0)), fixed)(regions[:2])
    assert fixed.shapes == [(1, 3, 32, 32)] * 8


class Narrow(Network):
    """Has no memory for more than `most` pictures."""

    most = 4

    def run(self, feeds: dict[str, np.ndarray], check: Any = None) -> dict[str, np.ndarray]:
        found = super().run(feeds, check)
        if len(feeds["x"]) > self.most:
            raise OutOfMemory(f"no memory for {len(feeds['x'])}")
        return found


def test_a_call_that_lacks_memory_is_halved_once(rng: np.random.Generator) -> None:
    rgb = picture(rng, 128, 128)

    def shades(pictures: np.ndarray) -> np.ndarray:
        return pictures[:, :1]

    high = Narrow(shades)
    (halved,) = segmenter(Network(level(0)), high, patch_count=7)([rgb])
    assert [shape[0] for shape in high.shapes] == [7, 3, 4]
    (whole,) = segmenter(Network(level(0)), Network(shades), patch_count=7)([rgb])
    np.testing.assert_array_equal(halved, whole)
    low = Narrow(level(0))
    assert len(segmenter(low, Network(level(1)))([rgb] * 6)) == 6
    assert [shape[0] for shape in low.shapes] == [6, 3, 3]
    with pytest.raises(OutOfMemory, match="no memory for 8"):
        segmenter(Network(level(0)), Narrow(shades), patch_fraction=1.0)([rgb])


def test_what_is_beyond_the_picture_counts_in_no_mean() -> None:
    """40 x 128: the lower patches have 8 rows of 32. Stage 1 is uncertainty there, and sure above."""

    def low(pictures: np.ndarray) -> np.ndarray:
        logits = np.full((len(pictures), 1, *pictures.shape[2:]), 9.0)
        logits[:, :, 4:5, 8:12] = 0  # the fifth row of 5 is under the lower patches; the padding has no say
        return logits

    rgb = np.zeros((40, 128, 3), np.uint8)
    (look,) = segmenter(Network(low), Network(level(-9)), patch_count=1).look([rgb], {})
    assert look.stages.windows_xywh == ((64, 32, 32, 8),)
    assert (look.stages.working_hw, look.stages.padded_hw) == ((40, 128), (64, 128))
    assert (look.probabilities[1, 32:, 64:96] < 0.001).all()
    assert (look.probabilities[1, :32] > 0.5).all()


@pytest.mark.parametrize("logit", [-200.0, 0.0, 3.0])
def test_equal_scores_go_by_reading_order(logit: float) -> None:
    """All probabilities 0, a half, or some other value."""
    rgb = np.zeros((77, 128, 3), np.uint8)
    (look,) = segmenter(Network(level(logit)), Network(level(0)), patch_count=5).look([rgb], {})
    assert [window[:2] for window in look.stages.windows_xywh] == [(0, 0), (32, 0), (64, 0), (96, 0), (0, 32)]


def test_regions_smaller_than_a_patch_are_enlarged(rng: np.random.Generator) -> None:
    (look,) = segmenter(Network(level(0)), Network(level(2))).look([picture(rng, 5, 20)], {})
    assert look.probabilities.shape == (2, 5, 20)
    assert look.stages.working_hw == (32, 128)
    assert look.stages.windows_xywh == ((0, 0, 5, 5), (5, 0, 5, 5), (10, 0, 5, 5), (15, 0, 5, 5))
    np.testing.assert_allclose(look.probabilities[1], 1 / (1 + np.exp(-2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patches": 8}, "patches of 16 pixels of 128"),
        ({"patches": 3}, r"patches of 42\.6667 pixels"),
        ({"patches": 200}, r"patches of 0\.64 pixels"),
        ({"patch_count": 17}, "has 16 at most"),
        ({"target": 2}, "target 2 is not one of 2 classes"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        segmenter(Network(level(0)), Network(level(0)), **settings)


def test_settings_that_do_not_fit_the_networks() -> None:
    with pytest.raises(InputError, match="multiple of 48 and at least 32"):
        segmenter(Network(level(0)), Network(level(0)), spec_of(size=128, multiple=48))
    with pytest.raises(InputError, match="at least 32"):
        segmenter(Network(level(0)), Network(level(0)), spec_of(size=128, multiple=16), patches=8)
    with pytest.raises(InputError, match="rank=logit needs two classes, the bundle has 4"):
        segmenter(Network(level(0), logits=4), Network(level(0), logits=4), spec_of(classes=4, size=128), rank="logit")


@pytest.mark.parametrize(
    ("shape", "logits", "message"),
    [
        ((None, 1, None, None), 1, r"the bundle declares float32 \[B, 3, H, W\]"),
        ((None, 3, None), 1, r"takes tensor\(float\) \[None, 3, None\]"),
        ((None, 3, None, None), 3, r"declares \[B, 1 or 2, H, W\]"),
        ((4, 3, None, None), 1, "takes 4 pictures at a time"),
        ((1, 3, 48, 32), 1, "high takes pictures of 32 x 48, patches=4 makes 32 x 32"),
    ],
)
def test_networks_of_other_shapes(shape: Any, logits: int, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        segmenter(Network(level(0)), Network(level(0), shape, logits))


def test_a_network_of_two_inputs_or_of_another_type() -> None:
    network = Network(level(0))
    network.inputs = {"x": ("tensor(uint8)", (None, 3, None, None))}
    with pytest.raises(BundleError, match=r"takes tensor\(uint8\)"):
        segmenter(network, Network(level(0)))
    network.inputs = {**network.inputs, "mask": ("tensor(float)", (None, 1, None, None))}
    with pytest.raises(BundleError, match="2 inputs and 1 outputs"):
        segmenter(network, Network(level(0)))


def test_stage_1_of_fixed_sides() -> None:
    """A graph for square pictures takes those, and says what else would fit."""
    fixed = segmenter(Network(level(0), (1, 3, 32, 64)), Network(level(0)), spec_of(size=512), patches=16)
    assert fixed([np.zeros((200, 400, 3), np.uint8)])[0].shape == (2, 200, 400)
    with pytest.raises(BundleError, match="low takes pictures of 64 x 32, the region makes 64 x 64: export it with"):
        fixed([np.zeros((400, 400, 3), np.uint8)])


def test_an_answer_of_another_shape() -> None:
    smaller = Network(lambda pictures: level(0)(pictures)[:, :, ::2, ::2])
    with pytest.raises(NetworkError, match=r"high returned \[4, 1, 16, 16\] for \[4, 3, 32, 32\]"):
        segmenter(Network(level(0)), smaller)([np.zeros((128, 128, 3), np.uint8)])
    three = Network(lambda pictures: np.zeros((len(pictures), 3, *pictures.shape[2:])), logits=None)
    with pytest.raises(NetworkError, match=r"declares \[B, 1 or 2, H, W\]"):
        StageNetwork("low", three, spec_of(size=128), 32)(np.zeros((1, 3, 32, 32), np.float32))


def test_probabilities_of_logits(rng: np.random.Generator) -> None:
    """One logit is that of the second class; extreme ones neither overflow nor warn."""
    odds = np.array([[[-1e4, -3, 0, 3, 1e4]]], np.float32)
    expected = [[[0, 1 / (1 + np.exp(3)), 0.5, 1 / (1 + np.exp(-3)), 1]]]
    np.testing.assert_allclose(probabilities(odds), expected, rtol=1e-6)
    shift = rng.standard_normal(odds.shape).astype(np.float32)
    np.testing.assert_allclose(probabilities(np.concatenate([shift, odds + shift])), expected, rtol=1e-5)
    np.testing.assert_allclose(log_odds(np.concatenate([shift, odds + shift])), odds, rtol=1e-5, atol=1e-5)
    many = rng.standard_normal((5, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(probabilities(many).sum(axis=0), 1, rtol=1e-6)
