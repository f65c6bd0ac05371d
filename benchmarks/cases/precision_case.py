"""The case `precision`: segmenter and image encoder in int8 against float32, on the CPU, and the masks of both.

The case makes the int8 bundle, with ranges from drawn scenes, and measures agreement on other scenes. For ViT-B's
random weights agreement says nothing: that bundle takes its ranges from one scene, and is only timed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrt.benchmarks.cases.soss_models import Models, chosen_models
from maskrt.benchmarks.harness.assemble import assemble, measure_sizes
from maskrt.benchmarks.harness.measure import Factory
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, EqualityCounts, equality_counts
from maskrt.benchmarks.reports.demo import HELD_OUT
from maskrt.benchmarks.scenes.bedside import draw_scene, write_scene
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.recorder import Recorder
from maskrt.runtime.engines.session import Array
from maskrt.runtime.evaluation.answers import Calibration, soss_answers, summarized
from maskrt.runtime.evaluation.equality import compare_segments, records
from maskrt.runtime.evaluation.verify import certify_precision
from maskrt.runtime.io.regions import roi_reader
from maskrt.runtime.kinds.open import open_pipeline
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.types import Report

OURS, PEER = "int8", "fp32"
ROLES = ("segmenter", "encoder")
CALIBRATION_SEED, SCENES = 800_000, 8  # neither these nor the held-out scenes were drawn in training
NEEDS = ("torch", "segment_anything", "onnx", "onnx_ir", "onnxscript", "safetensors", "cv2", "onnxruntime")


@dataclass(frozen=True)
class Part:
    """One network of a size's models, in both precisions."""

    models: Models
    bundle: Bundle
    role: str
    threads: int


@dataclass(frozen=True)
class Network:
    """An ONNX file on the CPU. feeds: an .npz of the pipeline's feeds."""

    model: Path
    feeds: Path
    threads: int

    def __call__(self) -> Callable[[], tuple[dict[str, float], dict[str, Array]]]:
        """Load the graph."""
        session = open_session(self.model, threads=self.threads)
        feeds = dict(np.load(self.feeds))
        return lambda: ({}, session.run(feeds))


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure the requested sizes; raise the errors of the case `soss`."""
    prepared = chosen_models(options, report, NEEDS)
    threads = options.threads or usable_cpus()
    bundles: dict[str, Bundle] = {}
    parts: dict[str, Part] = {}
    notes: list[str] = []
    for size, models in prepared.items():
        bundles[size] = int8_bundle(models, options.work / f"precision-{size}", threads, report)
        made = [role for role in ROLES if role in bundles[size].manifest.precisions[OURS].models]
        parts |= {f"{size}_{role}": Part(models, bundles[size].at(OURS), role, threads) for role in made}
    measured = measure_sizes(parts, options, report, contestants)
    equality: dict[str, EqualityCounts] = {}
    for size, models in prepared.items():
        counts = compare(bundles[size].path, models, options)
        equality |= {name: counts for name, part in parts.items() if part.models is models}
        notes.append(models.note)
        notes += sizes_and_errors(size, bundles[size])
        if models.trained:
            held_out = scenes(options.work / "precision-held-out", HELD_OUT, SCENES)
            found = certify_precision(bundles[size].at(OURS), soss_answers, held_out, threads=threads).agreement
            notes.append(f"{size}, {SCENES} held-out scenes (seeds from {HELD_OUT}): {summarized(found)}")
    notes.append(
        "equality: masks and labels of the pipeline in int8 against those in fp32, on the scene that was timed"
    )
    return assemble("precision", options, measured, equality, notes)


def contestants(part: Part, folder: Path) -> dict[str, Factory]:
    """Return both files as contestants, on the feeds that the pipeline gives the network."""
    recorder, fp32 = Recorder(), part.bundle.at(PEER)
    with SossPipeline(
        with_settings(fp32, {"points_per_side": 1, "select": "off"}),
        "cpu",
        part.threads,
        wrap_session=recorder.wrap_session,
    ) as soss:
        soss(part.models.rgb, part.models.roi)
    feeds = folder / "feeds.npz"
    recorded: Mapping[str, Any] = recorder.runs[part.role][0].feeds
    np.savez(feeds, **recorded)
    return {
        bundle.precision: Network(bundle.model_path(part.role), feeds, part.threads) for bundle in (part.bundle, fp32)
    }


def int8_bundle(models: Models, folder: Path, threads: int, report: Report) -> Bundle:
    """Make a bundle with int8 beside float32. Any loss is allowed, since the case measures it."""
    from maskrt.export.bundles.precisions import export_precisions

    calibration = scenes(folder / "scenes", CALIBRATION_SEED, SCENES if models.trained else 1)
    if not models.trained:  # the masks of random weights are calibrated on the whole frame
        calibration = Calibration(calibration.images)
    out = folder / "bundle"
    return export_precisions(
        models.bundle, out, [OURS], calibration, tolerance=0, threads=threads, overwrite=True, report=report
    )


def scenes(folder: Path, seed: int, count: int) -> Calibration:
    """Write drawn scenes into a folder, and return them with their regions of interest."""
    for number in range(seed, seed + count):
        write_scene(draw_scene(number), f"scene_{number:06d}", folder)
    return Calibration(str(folder / "images"), roi_reader(folder / "instances"))


def compare(bundle: Path, models: Models, options: BenchOptions) -> EqualityCounts:
    """Compare the pipeline's masks and labels in both precisions."""
    answers = {}
    for precision in (OURS, PEER):
        points = {"points_per_side": options.points_per_side, "select": "off"}
        with open_pipeline(bundle, "cpu", options.threads, precision=precision, settings=points) as pipeline:
            answers[precision] = pipeline(models.rgb, models.roi)
    equality = compare_segments(answers[OURS].segments, records(answers[PEER].segments))
    return equality_counts(equality, int((answers[OURS].label != answers[PEER].label).sum()))


def sizes_and_errors(size: str, bundle: Bundle) -> list[str]:
    """Write a line per network: the size of its files, and the error of the int8 one."""
    plain = bundle.manifest.models
    return [
        f"{size}, {role}: {artifact.size_bytes / 1e6:.1f} MB in int8, {plain[role].size_bytes / 1e6:.1f} MB in fp32; "
        f"off by {artifact.error.max_rel:.1e} of its largest output"
        for role, artifact in bundle.manifest.precisions[OURS].models.items()
        if role in ROLES
    ]
