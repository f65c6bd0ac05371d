"""The demo's report.html: one page that holds its pictures, so that it can be sent or kept as it is."""

import base64
import html
import io
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt import __version__
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.evaluation.compare import Scores
from maskrt.runtime.files import write_bytes

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>maskrt demo</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222 }}
img {{ max-width: 100%; border: 1px solid #ccc; margin: .3em 0 }}
table {{ border-collapse: collapse; margin: 1em 0 }}
td, th {{ padding: .25em 1em; border-bottom: 1px solid #ddd; text-align: right }}
td:first-child, th:first-child {{ text-align: left }}
.note {{ background: #fff6dd; padding: .7em 1em; border-left: 4px solid #e0b000 }}
</style></head><body>
<h1>Occlusion masks by soft voting</h1>
<p>A segmenter says what a region is, SAM says where it ends; every SAM segment takes the class that the segmenter's
probabilities vote for. White is occlusion: cables, tubes, bandages, blankets and whatever else covers the child.</p>
<p class="note">The scenes are drawn by a program and the two small models were trained on such drawings. The figures
show that the pipeline works; they say nothing about patients. Bundle note: {note}</p>
<h2>Scores on {images} held-out scenes, percent, inside the region of interest</h2>
{scores}
<p>AUC is that of the hard mask, (recall + specificity) / 2, as in the source document.</p>
<h2>Scenes</h2>
{pictures}
<h2>A real photograph</h2>
<p>The demo SAM has never seen a photograph; its segments are shown, with lowered gates, and nothing is claimed.</p>
{photograph}
<h2>Median time per stage, milliseconds per scene</h2>
{timings}
<p>{machine}</p>
</body></html>
"""


@dataclass(frozen=True)
class DemoReport:
    """The content of the page. pictures: uint8 [h, w, 3] each; photograph: a PNG file."""

    bundle: Path
    scores: Scores
    pictures: list[NDArray[np.uint8]]
    timings_ms: list[dict[str, float]]
    photograph: Path


def write_report(path: Path, report: DemoReport) -> None:
    """Write the page, with every picture inside it."""
    stages = {name: median(timings[name] for timings in report.timings_ms) for name in report.timings_ms[0]}
    page = PAGE.format(
        note=html.escape(open_bundle(report.bundle).manifest.note),
        images=report.scores.images,
        scores=_table(["", *report.scores.methods], [[name, *values] for name, values in report.scores.rows()]),
        pictures="\n".join(_image(picture) for picture in report.pictures),
        photograph=_image(np.asarray(Image.open(report.photograph))),
        timings=_table(["stage", "ms"], [[name, f"{value:.0f}"] for name, value in stages.items()]),
        machine=html.escape(
            f"maskrt {__version__}, ONNX Runtime {version('onnxruntime')}, NumPy {np.__version__}, "
            f"Numba {version('numba')}, Python {platform.python_version()}, {platform.platform()}"
        ),
    )
    write_bytes(path, page.encode())


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    lines = ("".join(f"<td>{html.escape(text)}</td>" for text in row) for row in rows)
    return f"<table><tr>{cells}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _image(picture: NDArray[np.uint8]) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=90)  # smaller than PNG, and only to look at
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'
