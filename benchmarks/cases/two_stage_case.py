"""The case `two-stage`: the document's figure 3, with the wall time that it does not show.

One U-Net on the whole picture, stage 1 alone, both stages with 2, 4, 8 and 16 patches along the longest side, and
windows at any place, on held-out scenes. All run the same code: the baseline is a bundle whose stage 1 sees the picture
at full size. A pair is a frame, and contestants take the same one in turns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.cases.soss_models import require
from maskrt.benchmarks.harness.measure import Measured, Row, run_pairs
from maskrt.benchmarks.harness.recording import Recording, Setup, draw_recording, load_setup
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, environment, total
from maskrt.benchmarks.reports.demo import HELD_OUT
from maskrt.benchmarks.scenes.bedside import draw_scene
from maskrt.runtime.bundle.bundle import Bundle, open_bundle
from maskrt.runtime.bundle.manifest import TwoStageManifest
from maskrt.runtime.bundle.two_stage_spec import low_size, padded_size, patch_side, working_size
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.metrics import image_dice
from maskrt.runtime.region import cut
from maskrt.runtime.types import Report, Roi

NEEDS = ("cv2", "onnxruntime", "torch", "onnx", "onnxscript", "safetensors")
DEMO = Path(__file__).resolve().parents[2] / "export" / "demo"
BUNDLE, WEIGHTS = DEMO / "two_stage", DEMO / "weights" / "unet_baseline.safetensors"
BASELINE = "baseline"
# Contestant -> the bundle's settings.
SETTINGS: dict[str, dict[str, Any]] = {
    "stage 1 only": {"windows": "off"},
    **{
        f"{patches} patches": {"patches": patches, "windows": "grid", "patch_fraction": None}
        for patches in (2, 4, 8, 16)
    },
    "40% of 8 x 8": {"patches": 8, "windows": "grid", "patch_fraction": 0.4},
    **{f"sliding, {patches}": {"patches": patches, "windows": "sliding", "patch_fraction": None} for patches in (4, 8)},
    "sliding, 40% of 8 x 8": {"patches": 8, "windows": "sliding", "patch_fraction": 0.4},
}


@dataclass(frozen=True)
class Seen:
    """A contestant's answer to a frame. mask: bool [h, w], the region of interest; windows: seen by stage 2."""

    mask: NDArray[np.bool_]
    windows: int


@dataclass(frozen=True)
class Contestant:
    """A bundle with its settings. Each iteration runs the next frame, and the first again after the last."""

    setup: Setup
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Callable[[], tuple[dict[str, float], dict[int, Seen]]]:
        """Load the bundle."""
        pipeline, frames = load_setup(self.setup, **self.options)
        rois = self.setup.recording.rois
        seen: dict[int, Seen] = {}
        done = 0

        def iterate() -> tuple[dict[str, float], dict[int, Seen]]:
            nonlocal done
            index = done % len(rois)
            done += 1
            result = pipeline(frames[index], rois[index])
            seen[index] = Seen(cut(result.mask, rois[index]), len(result.stages.windows_xywh))
            return result.timings_ms, seen

        return iterate


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure every contestant; `pairs` is the number of frames that count.

    Raises:
        ModuleNotFoundError: a module of the extras is missing.
        InputError: there are fewer pairs than frames, so that some would have no score; see also baseline_bundle.
        WorkerError: a contestant failed.
    """
    require(NEEDS)
    if options.pairs < options.frames:
        raise InputError(f"{options.pairs} pairs for {options.frames} frames: give --pairs {options.frames} or more")
    bundle = open_bundle(options.bundle or BUNDLE)
    bundles = dict.fromkeys(SETTINGS, bundle) | {BASELINE: baseline_bundle(bundle, options.work / "two-stage", report)}
    threads = options.threads or usable_cpus()
    with TemporaryDirectory(prefix="maskrt-bench-") as folder:
        recording = draw_recording(HELD_OUT, options.frames, Path(folder) / "frames.npy")
        truths = [cut(draw_scene(HELD_OUT + i).truth, roi) for i, roi in enumerate(recording.rois)]
        report(f"{options.frames} scenes drawn")
        measured = run_pairs(contestants(bundles, recording, threads), options.pairs, options.warmup, report)
    return CaseReport(
        case="two-stage",
        environment=environment(threads),
        rows=tuple(scored(row, measured, truths, recording.rois, bundles[row.name]) for row in measured.rows),
        ratios={f"{name}_vs_{BASELINE}": measured.ratio(BASELINE, name) for name in SETTINGS},
        equality=total({}),
        equality_by_size={},
        notes=notes(options, bundle),
    )


def contestants(bundles: Mapping[str, Bundle], recording: Recording, threads: int) -> dict[str, Contestant]:
    """Return the baseline, then every setting."""
    whole = {BASELINE: {"windows": "off"}}
    return {
        name: Contestant(Setup(bundles[name].path, recording, "cpu", threads), settings)
        for name, settings in (whole | SETTINGS).items()
    }


def baseline_bundle(bundle: Bundle, work: Path, report: Report) -> Bundle:
    """Make a bundle of one U-Net on the whole picture: both stages are the baseline's, and the first sees full size.

    Raises:
        InputError: the demo's baseline has no weights, or takes other pictures or has other classes than the bundle.
    """
    from maskrt.export.bundles.two_stage import export_two_stage

    manifest = bundle.expect(TwoStageManifest)
    if not WEIGHTS.is_file():
        raise InputError(f"{WEIGHTS} is missing: train it with make demo-unets")
    spec, network = manifest.two_stage, f"unet:{WEIGHTS}"
    return export_two_stage(
        network,
        network,
        work / "baseline",
        size=spec.size,
        shrink=1,
        fit=spec.fit,
        mean=spec.mean,
        std=spec.std,
        classes=spec.classes,
        patch_selection=msgspec.structs.replace(manifest.patch_selection, windows="off"),
        overwrite=True,
        report=report,
    )


def scored(
    row: Row, measured: Measured, truths: Sequence[NDArray[np.bool_]], rois: Sequence[Roi], bundle: Bundle
) -> Row:
    """Add the mean Dice and GFLOPs of the frames to a row."""
    seen: Mapping[int, Seen] = measured.values[row.name]
    settings = SETTINGS.get(row.name, {})
    products = [frame_gflops(bundle, settings, rois[index], seen[index].windows) for index in sorted(seen)]
    scores = [image_dice(truths[index], seen[index].mask) for index in sorted(seen)]
    return msgspec.structs.replace(row, dice=float(np.mean(scores)), gflops=float(np.mean(products)))


def frame_gflops(bundle: Bundle, settings: Mapping[str, Any], roi: Roi, windows: int) -> float:
    """Return the GFLOPs of both networks for a region, counted from their graphs."""
    manifest = bundle.expect(TwoStageManifest)
    spec, selection = manifest.two_stage, msgspec.structs.replace(manifest.patch_selection, **settings)
    low_hw = padded_size(low_size(spec, working_size(spec, (roi[3], roi[2]))), spec.multiple)
    flops = _flops(bundle, "low", (1, spec.channels, *low_hw))
    if windows:
        side = patch_side(spec, selection)
        flops += _flops(bundle, "high", (windows, spec.channels, side, side))
    return flops / 1e9


def _flops(bundle: Bundle, role: str, shape: tuple[int, ...]) -> int:
    from maskrt.export.graph_tools.cost import cost_of
    from maskrt.export.graph_tools.onnx_file import read_model
    from maskrt.export.graph_tools.shapes import input_shapes, walk_model

    path = bundle.model_path(role)
    model = read_model(path)
    (name,) = input_shapes(model)
    return cost_of(walk_model(model, path.name, {name: shape}), path.name).flops


def notes(options: BenchOptions, bundle: Bundle) -> tuple[str, ...]:
    """Return the notes that a reader needs to understand the figures."""
    spec = bundle.expect(TwoStageManifest).two_stage
    last = HELD_OUT + options.frames - 1
    return (
        f"{options.frames} held-out scenes at 1920x1080 (seeds {HELD_OUT} to {last}), their regions of interest at "
        f"{spec.size} pixels on the longest side; {options.pairs} frames after {options.warmup} warm-ups",
        f"{BASELINE}: the same U-Net, trained on whole pictures, on the whole picture, by the same code",
        "N patches: N of those of 1 / N of the longest side are looked at again; sliding, N: at most N such windows",
        "Dice: mean over the scenes, of masks; GFLOPs: 2 x multiply-adds / 1e9, counted from the graphs, mean",
        f"ratio A_vs_{BASELINE}: the baseline's time / A's, of the same frame measured in turns",
        "peak_rss_mb: of the worker, with its models; from loading to the last run",
        "demo models, trained on drawn scenes: no claim about real images",
    )
