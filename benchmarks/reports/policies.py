"""The effect of fewer prompts: every policy of maskrt.runtime.sam.prompts against the grid, on held-out scenes.

python -m maskrt.benchmarks.reports.policies --scenes 20 --json benchmarks/results/policies.json
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.harness.measure import Spread, spread_of
from maskrt.benchmarks.harness.report_json import Environment, environment
from maskrt.benchmarks.scenes.bedside import Scene, draw_scene
from maskrt.benchmarks.scenes.held_out import Progress, measure_held_out
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.evaluation.metrics import Confusion, Metrics
from maskrt.runtime.kinds.open import open_pipeline
from maskrt.runtime.pipelines.base import FramePipeline
from maskrt.runtime.types import Result

POLICIES = ("grid", "guided", "coarse_to_fine")
THIN = 6  # pixels of the frame


class PolicyRow(msgspec.Struct, frozen=True):
    """One policy over all scenes.

    soss: the scores of its answer; iou_with_grid: between its answer and the grid's, pooled; masks: per scene;
    thin_cable_recall: share of the pixels of cables under 6 px wide that it calls occlusion, None without any;
    grid_time_ratio: the grid's time over its own, scene by scene.
    """

    name: str
    soss: Metrics
    iou_with_grid: float
    masks: float
    thin_cable_recall: float | None
    grid_time_ratio: Spread


class Policies(msgspec.Struct, frozen=True):
    """The figures of all policies, and the scenes and the machine they were measured on."""

    scenes: int
    first_seed: int
    thin_cable_pixels: int
    environment: Environment
    rows: tuple[PolicyRow, ...]


@dataclass
class _Gathered:
    truth: Confusion = field(default_factory=Confusion)
    with_grid: Confusion = field(default_factory=Confusion)
    masks: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    thin_found: int = 0


def measure_policies(
    pipelines: Mapping[str, FramePipeline], seeds: Sequence[int], progress: Progress = lambda seed: None
) -> Policies:
    """Run every policy on the scenes of some seeds at 1920 x 1080, in turns on each.

    Args:
        pipelines: by policy, "grid" first; two classes, occlusion is class 1.
        seeds: of scenes that no model was trained on.
        progress: called with each seed that is done.
    """
    gathered = {name: _Gathered() for name in pipelines}
    thin_pixels = 0
    first = draw_scene(seeds[0])
    for pipeline in pipelines.values():
        pipeline(first.rgb, first.roi_xywh)  # warm: kernels compile, caches fill
    for turn, seed in enumerate(seeds):
        scene = draw_scene(seed)
        x, y, width, height = scene.roi_xywh
        window = slice(y, y + height), slice(x, x + width)
        thin = thin_cables(scene)[window]
        thin_pixels += int(thin.sum())
        results: dict[str, Result] = {}
        for name in list(pipelines) if turn % 2 == 0 else list(pipelines)[::-1]:
            start = time.perf_counter()
            results[name] = pipelines[name](scene.rgb, scene.roi_xywh)
            gathered[name].seconds.append(time.perf_counter() - start)
        for name, result in results.items():
            found = gathered[name]
            found.truth.add(scene.truth[window], result.mask[window])
            found.with_grid.add(results["grid"].mask[window], result.mask[window])
            found.masks.append(len(result.segments))
            found.thin_found += int(result.mask[window][thin].sum())
        progress(seed)
    grid_s = np.array(gathered["grid"].seconds)
    rows = tuple(
        PolicyRow(
            name,
            found.truth.metrics(),
            found.with_grid.metrics().iou,
            float(np.mean(found.masks)),
            found.thin_found / thin_pixels if thin_pixels else None,
            spread_of(grid_s / np.array(found.seconds)),
        )
        for name, found in gathered.items()
    )
    return Policies(len(seeds), seeds[0], thin_pixels, environment(usable_cpus()), rows)


def thin_cables(scene: Scene) -> NDArray[np.bool_]:
    """Return bool [H, W]: the pixels of cables that no square of 6 x 6 pixels inside their cable covers."""
    thin, square = np.zeros(scene.instances.shape, np.bool_), np.ones((THIN, THIN), np.uint8)
    for instance in scene.objects:
        if instance.kind == "cable":
            mask = (scene.instances == instance.id).astype(np.uint8)
            # Two anchors, or an even square would come back shifted by a pixel.
            fits = cv2.erode(mask, square, anchor=(0, 0))
            thin |= mask > cv2.dilate(fits, square, anchor=(THIN - 1, THIN - 1))
    return thin


def main() -> None:
    """Measure a bundle, and print and write the figures."""

    def measure(bundle: Path, seeds: Sequence[int], progress: Progress) -> Policies:
        with ExitStack() as stack:
            pipelines = {
                name: stack.enter_context(open_pipeline(bundle, settings={"prompts": name})) for name in POLICIES
            }
            return measure_policies(pipelines, seeds, progress)

    measure_held_out(main.__doc__, 20, measure)


if __name__ == "__main__":
    main()
