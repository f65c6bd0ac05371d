"""The demo: SOSS on held-out scenes with known truth and on one photograph, in a folder for a person to read."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.reports.demo_report import DemoReport, write_report
from maskrt.benchmarks.scenes.bedside import draw_scene
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.compare import MethodsComparison, Scores, compare_methods
from maskrt.runtime.evaluation.figures import comparison, row, stack
from maskrt.runtime.files import write_bytes
from maskrt.runtime.io.overlay import overlay, segments_picture
from maskrt.runtime.io.sinks import png_bytes
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.region import in_frame

BUNDLE = Path(__file__).resolve().parents[2] / "export" / "demo" / "bundle"
HELD_OUT = 900_000  # the training scenes have the seeds 100,000 to 102,879

# The demo SAM has never seen a photograph. It is so unsure of them that the bundle's own gates let nothing through.
PHOTOGRAPH_GATES = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.7}


def demo_bundle() -> Path:
    """Return the folder of the demo bundle.

    Raises:
        InputError: this installation has no demo models, which are too large for a wheel.
    """
    if not any(BUNDLE.glob("*.onnx")):
        raise InputError(
            "this installation has no demo models: install from a checkout with pip install -e '.[cpu,demo]', "
            "or name a bundle with --bundle"
        )
    return BUNDLE


@dataclass
class Demo:
    """The scores, pictures and times of the demo so far."""

    scores: Scores = field(default_factory=Scores)
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    timings_ms: list[dict[str, float]] = field(default_factory=list)


def run_demo(bundle: Path, out: Path, scenes: int, threads: int | None, report: Callable[[str], None]) -> Scores:
    """Run SOSS on scenes and a photograph; write masks, overlays, contact sheet, report.html and summary.json.

    Args:
        bundle: folder of the demo bundle.
        out: folder to write to.
        scenes: how many held-out scenes.
        threads: of the inference engine; None leaves the choice to it.
        report: called with a line per step.

    Raises:
        BundleError: the bundle is not whole.
    """
    demo = Demo()
    opened = open_bundle(bundle)
    with SossPipeline(opened, threads=threads) as pipeline:
        for number in range(HELD_OUT, HELD_OUT + scenes):
            start = time.perf_counter()
            compared = _scene(pipeline, number, out, demo)
            name, count = f"scene_{number:06d}", len(compared.branches.segments)
            report(f"{name}: {count} segments, {time.perf_counter() - start:.1f} s")
    with SossPipeline(with_settings(opened, PHOTOGRAPH_GATES), threads=threads) as pipeline:
        report(_photograph(pipeline, out))
    write_bytes(out / "contact_sheet.png", png_bytes(stack(demo.pictures)))
    write_bytes(out / "summary.json", msgspec.json.format(msgspec.json.encode(demo.scores.metrics()), indent=2) + b"\n")
    write_report(
        out / "report.html", DemoReport(bundle, demo.scores, demo.pictures, demo.timings_ms, out / "photograph.png")
    )
    return demo.scores


def _scene(pipeline: SossPipeline, number: int, out: Path, demo: Demo) -> MethodsComparison:
    scene = draw_scene(number)
    compared = compare_methods(pipeline, scene.rgb, scene.truth, scene.roi_xywh)
    mask = in_frame(compared.masks["soss"], scene.roi_xywh, (scene.rgb.shape[0], scene.rgb.shape[1]))
    name = f"scene_{number:06d}"
    write_bytes(out / "mask" / f"{name}.png", png_bytes(mask.astype(np.uint8) * np.uint8(255)))
    write_bytes(out / "overlay" / f"{name}.png", png_bytes(overlay(scene.rgb, mask, scene.roi_xywh)))
    demo.scores.add(compared)
    demo.pictures.append(comparison(compared))
    demo.timings_ms.append(compared.branches.timings_ms)
    return compared


def _photograph(pipeline: SossPipeline, out: Path) -> str:
    """Show the segments of a real photograph, without any claim about them."""
    from skimage import data

    rgb = np.ascontiguousarray(data.astronaut())
    segments = pipeline.branches(rgb).segments
    titles = "photograph (scikit-image: astronaut)", "segments, gates lowered"
    picture = row((rgb, segments_picture(segments)), titles, 512)
    write_bytes(out / "photograph.png", png_bytes(picture))
    return f"photograph: {len(segments)} segments"


def print_line(line: str) -> None:
    """Print progress on stderr at once."""
    print(line, file=sys.stderr, flush=True)
