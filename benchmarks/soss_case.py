"""The case `soss`: a frame through maskrt, and through PyTorch as the source document builds it.

Peers: segment_anything's SamAutomaticMaskGenerator, the segmenter in PyTorch and voting over dense NumPy masks, on the
checkpoints that the bundle was made from, with the same settings and number of threads; and the same with the networks
in ONNX Runtime. Where the segmenter is trained, maskrt with guided prompts runs too, whose answer is another. All run
the same frame in turns; masks and labels of the last turn are compared with PyTorch's.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from maskrt.benchmarks.assemble import assemble, measure_sizes
from maskrt.benchmarks.cases import BenchOptions
from maskrt.benchmarks.equality import compare_segments
from maskrt.benchmarks.measure import Factory, Measured, Spread
from maskrt.benchmarks.report_json import CaseReport, EqualityCounts, equality_counts
from maskrt.benchmarks.soss_contestants import OurContestant, Ours, Upstream, UpstreamContestant, Workload
from maskrt.benchmarks.soss_models import Models, Report, chosen_models
from maskrt.runtime.region import in_frame
from maskrt.runtime.rle import decode_rle, encode_rle
from maskrt.runtime.session import usable_cpus
from maskrt.runtime.types import Roi

OURS, PEER, LOOP, GUIDED = "maskrt", "pytorch_upstream", "onnxruntime_loop", "maskrt_guided"
NEEDS = ("torch", "segment_anything", "onnx", "onnxscript", "safetensors", "cv2", "onnxruntime")


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure the sizes asked for, one after the other.

    Raises:
        ModuleNotFoundError: PyTorch or another module of the extras is missing.
        InputError: an unknown size, or models that are missing.
        WorkerError: a side failed or died.
    """
    prepared = chosen_models(options, report, NEEDS)
    measured = measure_sizes(prepared, options, report, lambda models, folder: contestants(models, options, folder))
    equality = {size: compare(result, prepared[size]) for size, result in measured.items()}
    assembled = assemble("soss", options, measured, equality, notes(prepared, measured))
    return msgspec.structs.replace(assembled, ratios=turned_round(assembled.ratios))


def contestants(models: Models, options: BenchOptions, folder: Path) -> dict[str, Factory]:
    """All sides on one size."""
    frame, threads = folder / "frame.npy", options.threads or usable_cpus()
    np.save(frame, models.rgb)
    work = Workload(models.bundle, models.segmenter, models.sam, frame, models.roi, options.points_per_side, threads)
    sides: dict[str, Factory] = {
        OURS: OurContestant(work),
        PEER: UpstreamContestant(work, "pytorch"),
        LOOP: UpstreamContestant(work, "onnxruntime"),
    }
    return sides | ({GUIDED: OurContestant(work, "guided")} if models.trained else {})


def turned_round(ratios: dict[str, Spread]) -> dict[str, Spread]:
    """Guided prompts are ours too: their ratio is the grid's time over theirs, `guided_vs_grid`."""
    return {
        name.replace(f"vs_{GUIDED}", "guided_vs_grid"): (
            Spread(1 / spread.median, 1 / spread.max, 1 / spread.min) if name.startswith(f"vs_{GUIDED}") else spread
        )
        for name, spread in ratios.items()
    }


def compare(measured: Measured, models: Models) -> EqualityCounts:
    """Masks and labels of the two sides."""
    ours: Ours = measured.values[OURS]
    upstream: Upstream = measured.values[PEER]
    size_hw = models.rgb.shape[0], models.rgb.shape[1]
    records = [record_in_frame(record, models.roi, size_hw) for record in upstream[0]]
    return equality_counts(compare_segments(ours[0], records), int((ours[1] != upstream[1]).sum()))


def record_in_frame(record: dict[str, Any], roi: Roi, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Upstream's record of a mask in the ROI, in the frame's coordinates, where ours are."""
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


def notes(prepared: dict[str, Models], measured: dict[str, Measured]) -> tuple[str, ...]:
    """What a reader must know of the models and frames."""
    masks = {size: len(result.values[OURS][0]) for size, result in measured.items()}
    lines = [f"{models.note}; {masks[size]} masks" for size, models in prepared.items()]
    if any(models.trained for models in prepared.values()):
        lines.append("guided_vs_grid: the grid's time / that of prompts=guided, whose masks are others")
    return tuple(lines)
