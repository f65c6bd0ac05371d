"""The pipeline, its manifest, and its evaluation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numba
import numpy as np
import pytest
from tiny_two_stage import spec_of, write_tiny_two_stage

import maskrt
from maskrt.kernels import sets
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import TwoStageManifest
from maskrt.runtime.bundle.settings import with_overrides
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec, TwoStageSpec
from maskrt.runtime.errors import BundleError, InputError, NetworkError, NotFinite, OutOfMemory
from maskrt.runtime.evaluation.compare import STAGES, Scores, compare_stages
from maskrt.runtime.evaluation.figures import stages_comparison
from maskrt.runtime.evaluation.scoring import TWO_STAGE_EVALUATION
from maskrt.runtime.io.overlay import WINDOW_RGB
from maskrt.runtime.pipelines.refine.pipeline import open_refiner
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline
from maskrt.runtime.types import Frame, Result

ROI = (13, 7, 150, 90)


@pytest.fixture(scope="module")
def two_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_two_stage(tmp_path_factory.mktemp("bundles") / "two_stage")


@pytest.fixture
def rgb(rng: np.random.Generator) -> np.ndarray:
    squares = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return squares.repeat(15, axis=0).repeat(15, axis=1)


def test_a_result_is_in_the_frame(two_stage: Path, rgb: np.ndarray) -> None:
    x, y, width, height = ROI
    region = np.s_[y : y + height, x : x + width]
    with maskrt.open_pipeline(two_stage) as pipeline:
        assert isinstance(pipeline, TwoStagePipeline)
        result = pipeline(Frame(rgb), ROI)
        (look,) = pipeline.segmenter.look([np.ascontiguousarray(rgb[region])], {})
        assert np.array_equal(pipeline(rgb, ROI).mask, result.mask)
    assert result.mask.any()
    assert not result.mask.all()
    np.testing.assert_array_equal(result.label[region], look.probabilities.argmax(axis=0))
    np.testing.assert_array_equal(result.mask, result.label == 1)
    np.testing.assert_array_equal(result.probability[region], look.probabilities[1])
    outside = np.ones(rgb.shape[:2], bool)
    outside[region] = False
    assert not result.label[outside].any()
    assert not result.probability[outside].any()
    assert (len(result.segments), result.roi_xywh) == (0, ROI)
    assert set(result.timings_ms) == {"resize", "stage_1", "select", "stage_2", "assemble"}
    assert result.stages is not None
    assert (result.stages.working_hw, result.stages.padded_hw) == ((77, 128), (96, 128))
    moved = [(left + x, top + y, w, h) for left, top, w, h in look.stages.windows_xywh]
    assert list(result.stages.windows_xywh) == moved
    assert all(x <= left and y <= top and left + w <= x + width and top + h <= y + height for left, top, w, h in moved)


def test_a_batch_is_its_frames(two_stage: Path, rgb: np.ndarray) -> None:
    frames, rois = [rgb, rgb[::-1].copy(), rgb[:50, :70].copy()], [ROI, None, None]
    with maskrt.open_pipeline(two_stage) as pipeline:
        together = pipeline.batch(frames, rois)
        for found, frame, roi in zip(together, frames, rois, strict=True):
            alone = pipeline(frame, roi)
            assert isinstance(found, Result)
            assert found.stages == alone.stages
            np.testing.assert_allclose(found.probability, alone.probability, rtol=0, atol=1e-6)
        assert pipeline.batch([], []) == []


def test_errors_in_a_batch_are_of_their_frame(two_stage: Path, rgb: np.ndarray) -> None:
    with maskrt.open_pipeline(two_stage) as pipeline:
        found = pipeline.batch([rgb, rgb.astype(np.float32), rgb], [None, None, (0, 0, 999, 9)])
        assert [type(one) for one in found] == [Result, InputError, InputError]
        with pytest.raises(InputError, match="does not lie in"):
            pipeline(rgb, (0, 0, 999, 9))


class Failing:
    """A session that raises when a picture of a call is dark; `asked` is how many pictures each call had."""

    def __init__(self, session: Any, error: NetworkError) -> None:
        self.session, self.inputs, self.outputs, self.error = session, session.inputs, session.outputs, error
        self.asked: list[int] = []

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def run(self, feeds: dict[str, np.ndarray], check: Any = None) -> Any:
        self.asked.append(len(feeds["picture"]))
        if (feeds["picture"].max(axis=(1, 2, 3)) < 0).any():
            raise self.error
        return self.session.run(feeds, check)


def failing(two_stage: Path, error: NetworkError) -> tuple[TwoStagePipeline, list[int]]:
    """A pipeline whose stage 1 fails, and how many pictures each of its calls had."""
    asked: list[int] = []

    def watch(role: str, session: Any) -> Any:
        if role != "low":
            return session
        broken = Failing(session, error)
        broken.asked = asked
        return broken

    return TwoStagePipeline(open_bundle(two_stage), wrap_session=watch), asked


def test_nan_of_one_frame_leaves_the_others(two_stage: Path, rgb: np.ndarray) -> None:
    pipeline, asked = failing(two_stage, NotFinite("low.onnx returned NaN or infinity in logits"))
    with pipeline:
        found = pipeline.batch([rgb, np.zeros_like(rgb), rgb], [None] * 3)
    first, error, third = found
    assert isinstance(first, Result)
    assert isinstance(error, NotFinite)
    assert isinstance(third, Result)
    np.testing.assert_array_equal(first.mask, third.mask)
    assert asked == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("error", "calls"), [(NetworkError("low.onnx failed"), [3]), (OutOfMemory("low.onnx lacks memory"), [3, 1, 2])]
)
def test_any_other_failure_is_that_of_all(
    two_stage: Path, rgb: np.ndarray, error: NetworkError, calls: list[int]
) -> None:
    """And is not hidden behind frame after frame; what lacks memory was tried in halves."""
    pipeline, asked = failing(two_stage, error)
    with pipeline, pytest.raises(type(error), match=str(error)):
        pipeline.batch([rgb, rgb, np.zeros_like(rgb)], [None] * 3)
    assert asked == calls


@pytest.mark.parametrize("role", ["low", "high"])
def test_nan_from_a_network(tmp_path: Path, rgb: np.ndarray, role: str) -> None:
    bundle = write_tiny_two_stage(tmp_path / "nan", bias={role: np.nan})
    with maskrt.open_pipeline(bundle) as pipeline, pytest.raises(NetworkError, match=rf"{role}.onnx returned NaN"):
        pipeline(rgb)


def test_networks_of_fixed_sides(tmp_path: Path, rgb: np.ndarray) -> None:
    """As ONNX files of a user: stage 1's graph takes squares of 64 pixels, whatever the region is padded up to it."""
    shapes = {"low": (1, 64, 64), "high": (1, 64, 64)}
    bundle = write_tiny_two_stage(
        tmp_path / "fixed", size=512, shapes=shapes, patch_selection=PatchSelectionSpec(patches=8)
    )
    dynamic = write_tiny_two_stage(
        tmp_path / "dynamic", size=512, multiple=64, patch_selection=PatchSelectionSpec(patches=8)
    )
    with maskrt.open_pipeline(bundle) as fixed, maskrt.open_pipeline(dynamic) as expected:
        for roi in ((0, 0, 100, 100), (0, 0, 180, 60), (0, 0, 3, 120)):
            assert fixed(rgb, roi).stages == expected(rgb, roi).stages
            np.testing.assert_allclose(fixed(rgb, roi).probability, expected(rgb, roi).probability, rtol=0, atol=1e-6)
    with pytest.raises(BundleError, match="high takes pictures of 64 x 64, patches=4 makes 128 x 128"):
        maskrt.open_pipeline(bundle, settings={"patches": 4})
    maskrt.open_pipeline(bundle, settings={"patches": 4, "windows": "off"}).close()


def test_a_region_that_fixed_sides_do_not_fit(tmp_path: Path, rgb: np.ndarray) -> None:
    """That frame of the batch fails, and no other."""
    shapes = {"low": ("B", 32, 64)}
    bundle = write_tiny_two_stage(
        tmp_path / "wide", size=512, shapes=shapes, patch_selection=PatchSelectionSpec(patches=8)
    )
    with maskrt.open_pipeline(bundle) as pipeline:
        wide, tall = pipeline.batch([rgb, rgb], [(0, 0, 180, 60), (0, 0, 60, 120)])
        assert isinstance(wide, Result)
        assert "low takes pictures of 64 x 32, the region makes 64 x 64" in str(tall)
        with pytest.raises(BundleError, match="export it with dynamic sides"):
            pipeline(rgb, (0, 0, 60, 120))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patches": 8}, "patches of 16 pixels of 128"),
        ({"patch_count": 3, "uncertainty": 0.1}, "patch_count and uncertainty exclude each other"),
        ({"patch_count": 3, "patch_fraction": 0.1, "uncertainty": 0.1}, "exclude each other"),
        ({"patch_fraction": 1.5}, "patch_fraction"),
        ({"rank": "logit", "windows": "sliding"}, "rank=logit needs windows=grid"),
        ({"windows": "everywhere"}, "Invalid enum value"),
        ({"points_per_side": 3}, r"no setting points_per_side: .*, of kind two_stage, has these:\npatches=4: "),
        ({"target": 5}, "target 5 is not one of 2 classes"),
    ],
)
def test_options_that_do_not_fit(two_stage: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        maskrt.open_pipeline(two_stage, settings=options)


def test_a_budget_replaces_the_bundles(two_stage: Path) -> None:
    """One at a time: that of the bundle is set to null."""
    bundle = PatchSelectionSpec(patch_count=3)
    with pytest.raises(BundleError, match="set all but one to null"):
        with_overrides(bundle, {"uncertainty": 0.25})
    assert with_overrides(bundle, {"uncertainty": 0.25, "patch_count": None}).uncertainty == 0.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.5]}, "mean and std must have 3 numbers"),
        ({"channels": 1}, "mean and std must have 1 numbers"),
        ({"std": [1.0, 0.0, 1.0]}, r">= 1e-06 - at `\$\.std"),
        ({"classes": ["one"]}, "1 classes: expected 2 to 256"),
        ({"size": 31}, "size"),
        ({"size": 20000}, "size"),
        ({"channels": 4}, "channels"),
    ],
)
def test_specs_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(msgspec.to_builtins(spec_of(size=128)) | changes, TwoStageSpec)


def test_what_is_not_for_this_kind(two_stage: Path, tiny_bundle: Path) -> None:
    bundle = open_bundle(two_stage)
    assert isinstance(bundle.manifest, TwoStageManifest)
    with pytest.raises(
        BundleError, match=r"of kind two_stage and holds a two-stage segmenter: .* a segmenter with a SAM"
    ):
        SossPipeline(bundle)
    with pytest.raises(BundleError, match="no refiner: export one"):
        open_refiner(bundle)
    with pytest.raises(BundleError, match=r"of kind soss and holds .*; this needs a two-stage segmenter"):
        TwoStagePipeline(open_bundle(tiny_bundle))
    assert open_bundle(tiny_bundle).manifest.two_stage_specs is None


def test_a_grey_picture_is_its_luma(tmp_path: Path, rng: np.random.Generator) -> None:
    """A network of one channel sees grey as it is, and colours by their luma."""
    bundle = write_tiny_two_stage(tmp_path / "grey", channels=1, logits=1)
    grey = np.repeat(rng.integers(0, 256, (40, 64, 1), dtype=np.uint8), 3, axis=2)
    red = np.zeros_like(grey)
    red[:, :32, 0] = 255
    with maskrt.open_pipeline(bundle) as pipeline:
        assert pipeline(grey).probability.std() > 0.01
        # 0.299 * 255 rounds to 76.
        as_grey = np.zeros_like(grey)
        as_grey[:, :32] = 76
        np.testing.assert_array_equal(pipeline(red).probability, pipeline(as_grey).probability)


def test_stages_are_compared(two_stage: Path, rgb: np.ndarray) -> None:
    truth = rgb.mean(axis=2) > 127
    x, y, width, height = ROI
    with maskrt.open_pipeline(two_stage) as pipeline:
        compared = compare_stages(pipeline, rgb, truth, ROI)  # type: ignore[arg-type]
        np.testing.assert_array_equal(
            compared.masks["two_stage"], pipeline(rgb, ROI).mask[y : y + height, x : x + width]
        )
        assert TWO_STAGE_EVALUATION.methods == STAGES == tuple(compared.masks)
        with pytest.raises(InputError, match="same frame"):
            compare_stages(pipeline, rgb, truth[1:])  # type: ignore[arg-type]
    with maskrt.open_pipeline(two_stage, settings={"windows": "off"}) as alone:
        np.testing.assert_array_equal(compared.masks["stage_1"], alone(rgb, ROI).mask[y : y + height, x : x + width])
    assert (compared.masks["stage_1"] != compared.masks["two_stage"]).any()
    scores = Scores(STAGES)
    scores.add(compared)
    assert scores.metrics()["two_stage"].dice > scores.metrics()["stage_1"].dice > 0
    assert [len(values) for _, values in scores.rows()] == [2] * 13
    sheet = stages_comparison(compared, panel_width=width)
    assert sheet.shape == (height + 26 + 6, 5 * (width + 6) + 6, 3)
    left, top, _, _ = compared.stages.windows_xywh[0]
    panel = sheet[26 : 26 + height, -width - 6 : -6]
    assert tuple(panel[top, left]) == WINDOW_RGB


def test_pictures_of_tall_regions_stay_small(two_stage: Path, rng: np.random.Generator) -> None:
    """2 x 4000 pixels at the width of a panel would take 4 GB."""
    rgb = rng.integers(0, 256, (4000, 2, 3), np.uint8)
    with maskrt.open_pipeline(two_stage) as pipeline:
        sheet = stages_comparison(compare_stages(pipeline, rgb, rgb[:, :, 0] > 127), panel_width=50)
    assert sheet.shape == (4 * 50 + 26 + 6, 5 * (50 + 6) + 6, 3)


def test_kernels_keep_to_the_threads_in_an_evaluation(two_stage: Path, rgb: np.ndarray) -> None:
    seen = []

    def resize(values: np.ndarray, out: np.ndarray) -> None:
        seen.append(numba.get_num_threads())
        sets.CPU.resize_bilinear(values, out)

    kernels = replace(sets.CPU, resize_bilinear=resize)
    with TwoStagePipeline(open_bundle(two_stage), threads=1, kernels=kernels) as pipeline:
        compare_stages(pipeline, rgb, rgb[:, :, 0] > 127)
    assert set(seen) == {1}
