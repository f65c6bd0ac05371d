"""The demo's files, on the tiny bundle: what they hold, not how good it is."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from maskrt.benchmarks.reports.demo import HELD_OUT, run_demo
from maskrt.runtime.evaluation.compare import METHODS
from maskrt.runtime.evaluation.metrics import Metrics


@pytest.fixture(scope="module")
def demo(tiny_bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    lines = []
    return out, run_demo(tiny_bundle, out, 1, None, lines.append), lines


def test_summary_holds_every_metric_of_every_method(demo):
    out, scores, _ = demo
    summary = json.loads((out / "summary.json").read_text())
    assert tuple(summary) == METHODS
    for method in METHODS:
        assert tuple(summary[method]) == Metrics.__struct_fields__
        assert summary[method]["iou"] == scores.metrics()[method].iou


def test_pictures_are_in_frame_coordinates(demo):
    out, _, lines = demo
    name = f"scene_{HELD_OUT:06d}.png"
    mask = np.asarray(Image.open(out / "mask" / name))
    overlay = np.asarray(Image.open(out / "overlay" / name))
    assert mask.shape == (1080, 1920)
    assert set(np.unique(mask)) == {0, 255}
    assert overlay.shape == (1080, 1920, 3)
    assert (out / "contact_sheet.png").is_file()
    assert (out / "photograph.png").is_file()
    assert len(lines) == 2


def test_the_report_is_one_file_that_needs_nothing_else(demo):
    out, _, _ = demo
    page = (out / "report.html").read_text()
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in page.replace("data:image", "")
    for word in ("precision", "encoder", "Numba", "say nothing about patients"):
        assert word in page
