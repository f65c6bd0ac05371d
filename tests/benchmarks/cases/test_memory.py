"""How much memory a large frame takes, in a process of its own with the demo's models."""

import json
import subprocess
import sys

import pytest

from maskrt.benchmarks.reports.demo import BUNDLE

pytestmark = pytest.mark.bench

WORK = """
import json, sys
import numpy as np
import maskrt
from maskrt.benchmarks.scenes.bedside import draw_scene

def memory_mb(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name))

def frame(height, width):
    x, y, w, h = (scene := draw_scene(1_000_003)).roi_xywh
    rows, columns = np.arange(height) * h // height + y, np.arange(width) * w // width + x
    return np.ascontiguousarray(scene.rgb[np.ix_(rows, columns)])

with maskrt.open_pipeline(sys.argv[1], settings={'points_per_side': 16, **json.loads(sys.argv[2])}) as pipeline:
    pipeline(frame(400, 600))
    before = memory_mb("VmRSS")
    result = pipeline(frame(4000, 6000))
    print(json.dumps([memory_mb("VmHWM") - before, result.mask.shape, len(result.segments)]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("options", [{}, {"crop_n_layers": 1}])
def test_24_megapixels_in_2_gb(options):
    """On top of the models; the frame itself and what comes back of it included."""
    command = [sys.executable, "-c", WORK, str(BUNDLE), json.dumps(options)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    megabytes, shape, segments = json.loads(found.stdout)
    assert shape == [4000, 6000]
    assert segments > 0
    assert 24 * 3 < megabytes < 2000
