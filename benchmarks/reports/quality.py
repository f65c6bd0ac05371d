"""The quality of the demo models on held-out scenes: seven metrics, and the fit of SAM's masks to the drawn objects.

python -m maskrt.benchmarks.reports.quality --scenes 50 --json benchmarks/results/quality.json
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.scenes.bedside import Scene, draw_scene
from maskrt.benchmarks.scenes.held_out import Progress, measure_held_out
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.evaluation.compare import MethodsComparison, Scores, compare_methods
from maskrt.runtime.evaluation.metrics import Confusion, Metrics
from maskrt.runtime.pipelines.soss.fusion import fuse
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.rle import Rle
from maskrt.runtime.types import Segments

MIN_INSTANCE_AREA = 400  # pixels inside the region of interest


class Quality(msgspec.Struct, frozen=True):
    """The measured figures; scores between 0 and 1.

    methods: method -> seven metrics, uncovered pixels as the bundle says; soss_uncovered: the same for both ways of
    treating uncovered pixels. instance_iou: mean IoU of every drawn object of 400 px and more with the mask that fits
    it best; mask_iou: mean IoU of every mask with the object that it fits best, among those objects.
    """

    scenes: int
    first_seed: int
    methods: dict[str, Metrics]
    soss_uncovered: dict[str, Metrics]
    instance_iou: float
    instance_iou_by_kind: dict[str, float]
    mask_iou: float
    instances: int
    masks: int
    covered_fraction: float


@dataclass
class _Gathered:
    scores: Scores = field(default_factory=Scores)
    uncovered: dict[str, Confusion] = field(
        default_factory=lambda: {"background": Confusion(), "segmenter": Confusion()}
    )
    instance_ious: list[tuple[str, float]] = field(default_factory=list)
    mask_ious: list[float] = field(default_factory=list)
    covered: list[float] = field(default_factory=list)


def measure_quality(pipeline: SossPipeline, seeds: Sequence[int], progress: Progress = lambda seed: None) -> Quality:
    """Run the pipeline on the scenes of some seeds at 1920 x 1080.

    Args:
        pipeline: opened; two classes, occlusion is class 1.
        seeds: of scenes that no model was trained on.
        progress: called with each seed that is done.
    """
    gathered = _Gathered()
    for seed in seeds:
        scene = draw_scene(seed)
        compared = compare_methods(pipeline, scene.rgb, scene.truth, scene.roi_xywh)
        _gather(gathered, pipeline, scene, compared)
        progress(seed)
    by_kind: dict[str, list[float]] = {}
    for kind, iou in gathered.instance_ious:
        by_kind.setdefault(kind, []).append(iou)
    return Quality(
        scenes=len(seeds),
        first_seed=seeds[0],
        methods=gathered.scores.metrics(),
        soss_uncovered={name: confusion.metrics() for name, confusion in gathered.uncovered.items()},
        instance_iou=float(np.mean([iou for _, iou in gathered.instance_ious])),
        instance_iou_by_kind={kind: float(np.mean(values)) for kind, values in sorted(by_kind.items())},
        mask_iou=float(np.mean(gathered.mask_ious)),
        instances=len(gathered.instance_ious),
        masks=len(gathered.mask_ious),
        covered_fraction=float(np.mean(gathered.covered)),
    )


def _gather(gathered: _Gathered, pipeline: SossPipeline, scene: Scene, compared: MethodsComparison) -> None:
    gathered.scores.add(compared)
    branches = compared.branches
    for name, confusion in gathered.uncovered.items():
        spec = msgspec.structs.replace(pipeline.voting, vote="soft", uncovered=name)
        confusion.add(compared.truth, fuse(branches.probabilities, branches.segments, spec)[0] == spec.target)
    x, y, width, height = branches.roi_xywh
    instances = scene.instances[y : y + height, x : x + width]
    kinds = {instance.id: instance.kind for instance in scene.objects}
    identities, iou, covered = instance_ious(instances, branches.segments)
    gathered.covered.append(covered)
    if len(branches.segments) and len(identities):
        best = iou.max(axis=0)
        gathered.instance_ious += [(kinds[int(i)], float(value)) for i, value in zip(identities, best, strict=True)]
        gathered.mask_ious += iou.max(axis=1).tolist()
    else:
        gathered.instance_ious += [(kinds[int(i)], 0.0) for i in identities]


def instance_ious(
    instances: NDArray[np.uint16], segments: Segments
) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Return the IoU of every mask with every object that has at least 400 pixels here.

    Args:
        instances: uint16 [H, W], the visible object of each pixel.
        segments: masks of size [H, W].

    Returns:
        ids int64 [K] of the objects; IoU float64 [N, K]; the share of pixels under any mask.
    """
    areas = np.bincount(instances.ravel())
    identities = np.flatnonzero(areas >= MIN_INSTANCE_AREA)
    columns = np.ascontiguousarray(instances.T).ravel()  # column order, as the run lengths are
    covered = np.zeros(columns.size, np.bool_)
    iou = np.zeros((len(segments), len(identities)))
    for index, rle in enumerate(segments.rles):
        flat = _flat(rle)
        covered |= flat
        overlap = np.bincount(columns[flat], minlength=areas.size)[identities]
        iou[index] = overlap / (areas[identities] + int(segments.area[index]) - overlap)
    return identities, iou, float(covered.mean())


def _flat(rle: Rle) -> NDArray[np.bool_]:
    counts = np.asarray(rle["counts"])
    return np.repeat(np.arange(counts.size) % 2 == 1, counts)


def main() -> None:
    """Measure a bundle, and print and write the figures."""

    def measure(bundle: Path, seeds: Sequence[int], progress: Progress) -> Quality:
        with SossPipeline(open_bundle(bundle)) as pipeline:
            return measure_quality(pipeline, seeds, progress)

    measure_held_out(main.__doc__, 50, measure)


if __name__ == "__main__":
    main()
