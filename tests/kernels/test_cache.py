"""Every kernel from two processes at once on an empty cache: both must compile, write and finish with one answer."""

import os
import subprocess
import sys

SCRIPT = """
import numpy as np
from maskrt.kernels import contours, low_res, mask_stats, regions, resample, voting
from maskrt.kernels.distance import cpu as distance
from maskrt.kernels.morphology import cpu as morphology
from maskrt.kernels.morphology.reference import contour, disk
from maskrt.kernels.patches import cpu as patches
from maskrt.kernels.pixel_decoder import cpu as pixel_decoder
from maskrt.kernels.pixel_decoder.tables import axis_table
from maskrt.kernels.pixel_decoder.types import DecoderWeights, Grid
from maskrt.kernels.regions import cpu as boxes_of
from maskrt.kernels.sampling import cpu as sampling
from maskrt.kernels.sampling.reference import resize_taps
from maskrt.kernels.selections import cpu as selections

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
near = np.empty_like(clean)
morphology.dilate(contour(clean), disk(2), near)
deep = np.empty_like(clean)
morphology.erode_cross(clean, 2, deep)
apart = np.empty(clean.shape, np.int64)
distance.squared_distance(clean, apart)
filled, squares = rng.random(clean.shape, np.float32), np.ones((38, 23), bool)
selections.settle_squares(filled, near, 4, 0.02, squares)
bright = np.empty((3, 40, 50), np.float32)
taps, ones = (resize_taps(30, 40, 0, 40), resize_taps(20, 50, 0, 50)), np.ones(3, np.float32)
sampling.sample_bilinear(rng.integers(0, 256, (30, 20, 3), np.uint8).transpose(2, 0, 1), *taps, ones, ones, bright)
products, summed = rng.random((9, 2, 30, 20)).astype(np.float32), np.empty((2, 38, 48), np.float32)
sampling.add_shifted(products, *taps, summed)
shape = {"placed": (8, 6), "bias": (8,), "hidden": (2, 8, 8), "hidden_bias": (2, 8), "last": (8,)}
weights = DecoderWeights(**{k: rng.random(v).astype(np.float32) - 0.5 for k, v in shape.items()}, last_bias=ones[0])
grid, probability = Grid.of(axis_table(20, 10), axis_table(30, 15), weights), np.empty(600, np.float32)
features = rng.random((10, 15, 8)).astype(np.float32)
pixel_decoder.decode_pixels(features, (0, 0), grid, np.arange(600), weights, probability)
means, window_corners = np.empty((2, 3, 3)), np.array([[0, 0], [5, 3]])
patches.patch_means(out[:, :20, :20].copy(), (90, 80), 32, means)
patch, blended = np.empty((2, 3, 16, 16), np.float32), out[:, :40, :40].copy()
picture, table = rng.integers(0, 256, (30, 20, 3), np.uint8), rng.random((3, 256), np.float32)
patches.gather_patches(picture, window_corners, table, patch)
patches.blend_patches(patch[:, :2].copy(), window_corners, 4, blended)
chosen = patches.choose_windows(rng.random((30, 20)), 4, 6, 0.01)
outlines = contours.outer_contours(mask)
print(len(outlines), sum(outline.sum() for outline in outlines))
print(means.sum(), patch.sum(), blended.sum(), chosen.tolist())
print(near.sum(), deep.sum(), apart.sum(), filled.sum(), squares.sum(), boxes_of.region_boxes(clean).tolist())
print(bright.sum(), summed.sum(), probability.sum())
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
