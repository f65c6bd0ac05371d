"""The cost of each selection of pixels in quality: the demo refiner on held-out scenes of 2K to 4K.

python -m maskrt.benchmarks.reports.refine_quality --scenes 20 --json benchmarks/results/refine_quality.json
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np

from maskrt.benchmarks.harness.measure import Spread, spread_of
from maskrt.benchmarks.harness.report_json import Environment, environment
from maskrt.benchmarks.scenes.held_out import Progress, measure_held_out
from maskrt.benchmarks.scenes.refinement import refine_scene
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.evaluation.refine_metrics import RefineScores
from maskrt.runtime.pipelines.refine.pipeline import open_refiner
from maskrt.runtime.pipelines.refine.refiner import Refiner

SELECTIONS = ("full", "bbox", "contour", "strided:2", "strided:4", "strided:8", "adaptive")
SIZES_WH = ((2000, 1500), (2560, 1440), (3200, 2400), (3840, 2160))  # scene by scene, from the first again


class SelectionRow(msgspec.Struct, frozen=True):
    """One selection over all scenes, or the rough masks that the refiner got.

    iou: pooled, mba: mean over scenes, both 0 to 1; decoded_fraction: mean; full_time_ratio: the time with every pixel
    decoded over its own, scene by scene.
    """

    name: str
    iou: float
    mba: float
    decoded_fraction: float = 0.0
    full_time_ratio: Spread | None = None


class RefineQuality(msgspec.Struct, frozen=True):
    """The figures of all selections, and the scenes and the machine they were measured on."""

    scenes: int
    first_seed: int
    sizes_wh: tuple[tuple[int, int], ...]
    environment: Environment
    rows: tuple[SelectionRow, ...]


def measure_refiner(
    bundle: Path,
    seeds: Sequence[int],
    progress: Progress = lambda seed: None,
    sizes_wh: Sequence[tuple[int, int]] = SIZES_WH,
    selections: Sequence[str] = SELECTIONS,
) -> RefineQuality:
    """Refine the rough mask of every scene with every selection, in turns.

    Args:
        bundle: of a trained refiner.
        seeds: of scenes that it was not trained on.
        progress: called with each seed that is done.
        selections: "full" first.
    """
    rough = RefineScores()
    scores = {name: RefineScores() for name in selections}
    seconds: dict[str, list[float]] = {name: [] for name in selections}
    fractions: dict[str, list[float]] = {name: [] for name in selections}
    opened = open_bundle(bundle)
    with ExitStack() as stack:
        refiners: dict[str, Refiner] = {
            name: stack.enter_context(open_refiner(with_settings(opened, {"select": name}))) for name in selections
        }
        for turn, seed in enumerate(seeds):
            scene = refine_scene(seed, sizes_wh[turn % len(sizes_wh)])
            rough.add(scene.truth, scene.rough > 0.5)
            if turn == 0:
                for refiner in refiners.values():  # kernels compile, or load
                    refiner(scene.rgb[:256, :256].copy(), scene.rough[:256, :256].copy())
            for name in list(selections) if turn % 2 == 0 else list(selections)[::-1]:
                start = time.perf_counter()
                refined = refiners[name](scene.rgb, scene.rough)
                seconds[name].append(time.perf_counter() - start)
                scores[name].add(scene.truth, refined.mask)
                fractions[name].append(refined.decoded_fraction)
            progress(seed)
    full = np.array(seconds[selections[0]])
    rows = [SelectionRow("rough", rough.iou, rough.mba)]
    rows += [
        SelectionRow(
            name,
            scores[name].iou,
            scores[name].mba,
            float(np.mean(fractions[name])),
            spread_of(full / np.array(seconds[name])),
        )
        for name in selections
    ]
    return RefineQuality(len(seeds), seeds[0], tuple(sizes_wh), environment(usable_cpus()), tuple(rows))


def main() -> None:
    """Measure a refiner's selections, and print and write the figures."""
    measure_held_out(main.__doc__, 20, measure_refiner)


if __name__ == "__main__":
    main()
