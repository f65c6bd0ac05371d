"""The case `soss`: a frame through maskrt, and through PyTorch as the source document builds it.

Peers: segment_anything's SamAutomaticMaskGenerator, the segmenter in PyTorch and voting over dense NumPy masks, on the
checkpoints that the bundle was made from, with the same settings and number of threads; and the same with the networks
in ONNX Runtime. All run the same frame in turns; masks and labels of the last turn are compared with PyTorch's.

Where the segmenter is trained, prompts=guided is compared with the grid too. How much it saves depends on the picture,
so that is measured on held-out scenes, as maskrt.benchmarks.reports.policies does, after everything else.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from maskrt.benchmarks.cases.soss_contestants import OurContestant, Ours, Upstream, UpstreamContestant, Workload
from maskrt.benchmarks.cases.soss_models import Models, chosen_models
from maskrt.benchmarks.harness.assemble import assemble, measure_sizes
from maskrt.benchmarks.harness.measure import Factory, Measured, Spread
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, EqualityCounts, equality_counts
from maskrt.benchmarks.reports.demo import HELD_OUT
from maskrt.benchmarks.reports.policies import Policies, measure_policies
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.evaluation.equality import compare_segments
from maskrt.runtime.kinds.open import open_pipeline
from maskrt.runtime.region import in_frame
from maskrt.runtime.rle import decode_rle, encode_rle
from maskrt.runtime.types import Report, Roi

OURS, PEER, LOOP = "maskrt", "pytorch_upstream", "onnxruntime_loop"
HELD_OUT_SCENES = 20  # on which guided prompts are compared with the grid
NEEDS = ("torch", "segment_anything", "onnx", "onnxscript", "safetensors", "cv2", "onnxruntime")


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure the requested sizes, one after the other.

    Raises:
        ModuleNotFoundError: PyTorch or another module of the extras is missing.
        InputError: the size is unknown, or its models are missing.
        WorkerError: a side failed or died.
    """
    prepared = chosen_models(options, report, NEEDS)
    measured = measure_sizes(prepared, options, report, lambda models, folder: contestants(models, options, folder))
    equality = {size: compare(result, prepared[size]) for size, result in measured.items()}
    guided = {
        size: measure_guided(size, models, options, report) for size, models in prepared.items() if models.trained
    }
    assembled = assemble("soss", options, measured, equality, notes(prepared, measured, guided))
    ratios = assembled.ratios | guided_ratios(guided, list(prepared)[-1])
    return msgspec.structs.replace(assembled, ratios=ratios)


def contestants(models: Models, options: BenchOptions, folder: Path) -> dict[str, Factory]:
    """Return all contestants of one size."""
    frame, threads = folder / "frame.npy", options.threads or usable_cpus()
    np.save(frame, models.rgb)
    work = Workload(models.bundle, models.segmenter, models.sam, frame, models.roi, options.points_per_side, threads)
    return {
        OURS: OurContestant(work),
        PEER: UpstreamContestant(work, "pytorch"),
        LOOP: UpstreamContestant(work, "onnxruntime"),
    }


def measure_guided(size: str, models: Models, options: BenchOptions, report: Report) -> Policies:
    """Measure the grid and prompts=guided on the first held-out scenes, in turns in this process."""
    threads = options.threads or usable_cpus()
    with ExitStack() as stack:
        pipelines = {
            prompts: stack.enter_context(
                open_pipeline(
                    models.bundle,
                    threads=threads,
                    settings={"points_per_side": options.points_per_side, "prompts": prompts},
                )
            )
            for prompts in ("grid", "guided")
        }
        seeds = range(HELD_OUT, HELD_OUT + HELD_OUT_SCENES)
        return measure_policies(pipelines, seeds, lambda seed: report(f"{size}: guided prompts, scene {seed} done"))


def guided_ratios(guided: Mapping[str, Policies], largest: str) -> dict[str, Spread]:
    """Return the grid's time over that of guided prompts, of every size and, without a size's name, of the largest."""
    ratios = {f"guided_vs_grid_{size}": found.rows[1].grid_time_ratio for size, found in guided.items()}
    return ratios | ({"guided_vs_grid": ratios[f"guided_vs_grid_{largest}"]} if largest in guided else {})


def compare(measured: Measured, models: Models) -> EqualityCounts:
    """Compare the masks and labels of the two sides."""
    ours: Ours = measured.values[OURS]
    upstream: Upstream = measured.values[PEER]
    size_hw = models.rgb.shape[0], models.rgb.shape[1]
    records = [record_in_frame(record, models.roi, size_hw) for record in upstream[0]]
    return equality_counts(compare_segments(ours[0], records), int((ours[1] != upstream[1]).sum()))


def record_in_frame(record: dict[str, Any], roi: Roi, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Move upstream's record of a mask from the ROI's coordinates to the frame's, which ours have."""
    x, y, width, height = roi
    if (x, y, height, width) == (0, 0, *size_hw):
        return record
    ((point_x, point_y),) = record["point_coords"]
    box_x, box_y, box_width, box_height = record["bbox"]
    return {
        **record,
        "segmentation": encode_rle(in_frame(decode_rle(record["segmentation"]), roi, size_hw)),
        "point_coords": [[point_x + x, point_y + y]],
        "bbox": [box_x + x, box_y + y, box_width, box_height],
    }


def notes(
    prepared: Mapping[str, Models], measured: Mapping[str, Measured], guided: Mapping[str, Policies]
) -> tuple[str, ...]:
    """Return the notes that a reader needs about models and frames."""
    masks = {size: len(result.values[OURS][0]) for size, result in measured.items()}
    lines = [f"{models.note}; {masks[size]} masks" for size, models in prepared.items()]
    for size, found in guided.items():
        grid, fewer = found.rows
        lines.append(
            f"guided_vs_grid ({size}): the grid's time / that of prompts=guided, whose masks are others, on "
            f"{found.scenes} held-out scenes (seeds {found.first_seed} to {found.first_seed + found.scenes - 1}); "
            f"median and range over the scenes; SOSS IoU {grid.soss.iou:.3f} with the grid, {fewer.soss.iou:.3f} guided"
        )
    return tuple(lines)
