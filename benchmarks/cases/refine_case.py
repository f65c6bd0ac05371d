"""The case `refine`: the tables of the document on refinement, in time, memory and quality, for this runtime.

Contestants, all on one held-out scene: the original's order of computation in PyTorch; every exact saving after it, one
by one; then each selection of pixels, which changes the answer. A contestant's mask is scored against the scene's truth
where the models are trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.cases.refine_models import RefineModels, refine_models
from maskrt.benchmarks.cases.soss_models import require
from maskrt.benchmarks.harness.measure import Factory, Iterate, Measured, Row, Spread, run_pairs
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, EqualityCounts, environment, total
from maskrt.benchmarks.scenes.refinement import RefineScene, refine_scene
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.refine_metrics import RefineScores
from maskrt.runtime.evaluation.verify import TIE
from maskrt.runtime.types import Report

SEED = 900000  # of the scene: the first that no model was trained on
TILE = 384
PICTURES = {"2k": (2000, 1500), "4k": (3840, 2160), "6k": (6000, 4000)}
ORIGINAL, FULL, STRIDED, ADAPTIVE = "pytorch_original", "full", "strided:4", "adaptive"
STEPS = (ORIGINAL, "pytorch_no_layer4", "pytorch_projected", "pytorch_index_tables")
TILES = {"full, one tile": 1 << 14, "full, tile 512": 512, "full, tile 128": 128}
SELECTIONS = ("bbox", "contour", "contour, eager", "strided:2", STRIDED, "strided:8", ADAPTIVE)
LIMIT_MB = 3000  # at 6k
SMALL = 128  # side of the corner that every contestant refines while it loads
# Picture -> contestants besides ours with every pixel decoded; larger pictures leave out those that take many minutes.
SIDES = {
    "2k": (*STEPS, *TILES, *SELECTIONS),
    "4k": ("contour", STRIDED, ADAPTIVE),
    "6k": (STRIDED, ADAPTIVE),
}
NEEDS = ("torch", "onnx", "onnxscript", "safetensors", "cv2", "onnxruntime")


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure the requested sizes and pictures, one after the other.

    Raises:
        ModuleNotFoundError: PyTorch or another module of the extras is missing.
        InputError: a size or picture is unknown.
        WorkerError: a side failed or died.
    """
    require(NEEDS)
    prepared = refine_models(options.size, options.work, report)
    measured: dict[str, Measured] = {}
    notes: list[str] = []
    scenes: dict[str, RefineScene] = {}
    unknown = set(options.pictures) - set(PICTURES)
    if unknown:
        raise InputError(f"unknown picture {', '.join(sorted(unknown))}; known: {', '.join(PICTURES)}")
    for size, models in prepared.items():
        notes.append(models.note)
        for picture in options.pictures:
            name = f"{size}_{picture}"
            scenes[name] = refine_scene(SEED, PICTURES[picture])
            on_progress = partial(tell, report, name)
            measured[name] = measure(models, scenes[name], picture, options, on_progress)
    rows = [row for name, found in measured.items() for row in scored(name, found, scenes[name], prepared)]
    equality = {name: compare(found) for name, found in measured.items() if ORIGINAL in found.values}
    notes += [
        "ratio A_vs_B: B's time / A's, of pairs measured in turns; without a size it is that of the last one",
        f"{options.pairs} pairs after {options.warmup} warm-ups; one worker process each, only one working at a time",
        "every contestant refines a corner of the picture while it loads, so that its kernels are compiled",
        "equality: the mask of full against that of the original",
        f"4k and 6k: PyTorch left out; 6k: {LIMIT_MB} MB allowed",
    ]
    return CaseReport(
        case="refine",
        environment=environment(options.threads or usable_cpus()),
        rows=tuple(rows),
        ratios=ratios(measured),
        equality=total(equality),
        equality_by_size=equality,
        notes=tuple(notes),
    )


def tell(report: Report, name: str, line: str) -> None:
    """Report a line about one picture."""
    report(f"{name}: {line}")


def measure(models: RefineModels, scene: RefineScene, picture: str, options: BenchOptions, report: Report) -> Measured:
    """Measure all contestants on one picture."""
    with TemporaryDirectory(prefix="maskrt-bench-") as folder:
        file = Path(folder) / "scene.npz"
        np.savez(file, rgb=scene.rgb, rough=scene.rough)
        work = Work(models, file, options.threads or usable_cpus(), LIMIT_MB if picture == "6k" else None)
        sides: dict[str, Factory] = {FULL: Ours(work, FULL, TILE)}
        for name in chosen_sides(picture, options):
            sides[name] = Theirs(work, name) if name in STEPS else Ours(work, name, TILES.get(name, TILE))
        return run_pairs(sides, options.pairs, options.warmup, report)


def chosen_sides(picture: str, options: BenchOptions) -> tuple[str, ...]:
    """Return the contestants beside ours.

    Raises:
        InputError: the picture does not have one of them.
    """
    unknown = set(options.sides) - set(SIDES[picture])
    if unknown:
        raise InputError(f"{picture} has no {', '.join(sorted(unknown))}; it has {', '.join(SIDES[picture])}")
    return options.sides or SIDES[picture]


@dataclass(frozen=True)
class Work:
    """The input of every contestant. scene: an .npz of rgb and rough."""

    models: RefineModels
    scene: Path
    threads: int
    memory_limit_mb: int | None


Answer = tuple[NDArray[np.float32], float]  # probability [H, W], and the share of pixels decoded


@dataclass(frozen=True)
class Ours:
    """maskrt with a selection. "eager" also fuses tiles that have no pixels to decode."""

    work: Work
    select: str
    tile: int

    def __call__(self) -> Iterate:
        """Load the bundle."""
        from maskrt.runtime.bundle.bundle import open_bundle
        from maskrt.runtime.bundle.specs import RefinementSpec
        from maskrt.runtime.engines.loading import Sessions
        from maskrt.runtime.pipelines.refine.pipeline import refiner_of
        from maskrt.runtime.pipelines.refine.refiner import Refiner

        select, _, variant = self.select.partition(", ")
        bundle = open_bundle(self.work.models.bundle)
        settings = RefinementSpec(select=select, tile=self.tile, memory_limit_mb=self.work.memory_limit_mb)
        sessions, (spec, _) = Sessions(bundle, threads=self.work.threads), refiner_of(bundle)
        refiner = Refiner(sessions, spec, settings, lazy=variant != "eager")
        scene = np.load(self.work.scene)
        rgb, rough = scene["rgb"], scene["rough"]

        refiner(rgb[:SMALL, :SMALL].copy(), rough[:SMALL, :SMALL].copy())  # kernels compile, or load

        def iterate() -> tuple[dict[str, float], Answer]:
            refined = refiner(rgb, rough)
            return refined.timings_ms, (refined.probability, refined.decoded_fraction)

        return iterate


@dataclass(frozen=True)
class Theirs:
    """CRM in PyTorch, after one of the steps."""

    work: Work
    step: str

    def __call__(self) -> Iterate:
        """Load the checkpoint."""
        import torch

        from maskrt.benchmarks.peers.crm_steps import steps
        from maskrt.export.bundles.crm_cascade import refine_plainly
        from maskrt.export.bundles.refiner import read_crm
        from maskrt.runtime.bundle.bundle import open_bundle
        from maskrt.runtime.pipelines.refine.pipeline import refiner_of

        torch.set_num_threads(self.work.threads)
        net = read_crm(self.work.models.crm)
        spec, _ = refiner_of(open_bundle(self.work.models.bundle))
        features, decode = steps(net)[self.step]
        scene = np.load(self.work.scene)
        rgb, rough = scene["rgb"], scene["rough"]
        refine_plainly(net, spec, rgb[:SMALL, :SMALL].copy(), rough[:SMALL, :SMALL].copy(), features, decode)
        return lambda: ({}, (refine_plainly(net, spec, rgb, rough, features, decode), 1.0))


def scored(name: str, measured: Measured, scene: RefineScene, prepared: Mapping[str, RefineModels]) -> list[Row]:
    """Return the rows of one picture, with quality where the models are trained."""
    trained = prepared[name.partition("_")[0]].trained
    rows = []
    for row in measured.rows:
        probability, fraction = measured.values[row.name]
        quality = score(scene, probability > 0.5) if trained else {}
        rows.append(msgspec.structs.replace(row, name=f"{row.name} ({name})", decoded_fraction=fraction, **quality))
    return rows


def score(scene: RefineScene, mask: NDArray[np.bool_]) -> dict[str, float]:
    """Return IoU and mBA of a mask."""
    scores = RefineScores()
    scores.add(scene.truth, mask)
    return {"iou": scores.iou, "mba": scores.mba}


def compare(measured: Measured) -> EqualityCounts:
    """Compare ours, with every pixel decoded, with the original."""
    ours: Answer = measured.values[FULL]
    original: Answer = measured.values[ORIGINAL]
    differs = (ours[0] > 0.5) != (original[0] > 0.5)
    ties = differs & (np.abs(original[0] - 0.5) < TIE)
    count = int(differs.sum())
    kind = "identical" if not count else "tie" if count == int(ties.sum()) else "different"
    largest = float(np.abs(ours[0] - original[0]).max())
    return EqualityCounts(
        masks=1,
        identical_rles=int(kind == "identical"),
        ties=int(kind == "tie"),
        different=int(kind == "different"),
        label_pixels_different=count,
        same_order=True,
        max_pred_iou_difference=largest,
    )


def ratios(measured: Mapping[str, Measured]) -> dict[str, Spread]:
    """Return the ratios of every picture, and without a picture's name those of the last one that has both sides."""
    wanted = {
        "full_vs_pytorch_original": (ORIGINAL, FULL),
        "strided4_vs_pytorch_original": (ORIGINAL, STRIDED),
        "adaptive_vs_pytorch_original": (ORIGINAL, ADAPTIVE),
        "adaptive_vs_strided4": (STRIDED, ADAPTIVE),
    }
    found: dict[str, Spread] = {}
    for name, result in measured.items():
        for ratio, (slower, faster) in wanted.items():
            if slower in result.seconds:
                found[ratio] = found[f"{ratio}_{name}"] = result.ratio(slower, faster)
    return found
