"""Every kernel from two processes at once on an empty cache: both must compile, write and finish with one answer."""

import os
import subprocess
import sys

SCRIPT = """
import numpy as np
from maskrt.kernels import low_res, mask_stats, regions, resample, voting

rng = np.random.default_rng(1)
out = np.empty((2, 150, 90), np.float32)
resample.resize_bilinear(rng.standard_normal((2, 20, 30)).astype(np.float32), out)
mask = out[0] > 0
clean = np.empty_like(mask)
regions.remove_small_regions(mask, 40, "holes", clean)
box, counts = mask_stats.box_and_counts(clean)
runs = voting.runs_of([counts])
votes = np.empty((1, 2))
voting.count_votes(out, runs, votes)
label = np.zeros(mask.shape, np.uint8)
voting.paint(runs, np.ones(1, np.uint8), np.zeros(1, np.int64), label)
logits, placement = rng.standard_normal((2, 16, 16)).astype(np.float32), low_res.Placement(64, (64, 40), (150, 90))
stability, boxes = np.empty(2, np.float32), np.empty((2, 4), np.int32)
low_res.measure_masks(logits, placement, np.array([-1, 0, 1], np.float32), 0.0, stability, boxes)
window = low_res.window_of(logits[0], placement, boxes[0])
print(stability.tolist(), low_res.mask_counts(window, 16, placement, 0, boxes[0]).sum())
print(box.tolist(), counts.sum(), votes.tolist(), label.sum(), out.sum())
"""


def test_two_processes_share_a_cold_cache(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", SCRIPT]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert list((tmp_path / "cache").rglob("*.nbi"))
    warm = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert warm.stdout == answers[0]
