"""The case `voting`: the probabilities of the segmenter summed under every segment.

The peer votes as the source document does, with one boolean index into dense masks per segment. Each gets the input
that its pipeline has at that point: ours run lengths, the peer dense masks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.harness.assemble import assemble
from maskrt.benchmarks.harness.measure import Factory, run_pairs
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, equality_counts
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.evaluation.equality import Equality
from maskrt.runtime.rle import encode_rle
from maskrt.runtime.types import Report

OURS, PEER = "maskrt", "numpy_dense"
SIZE, SEGMENTS, SEED = "1080p", 200, 0
Votes = NDArray[np.float64]


@dataclass(frozen=True)
class Work:
    """The input of both sides. file: .npz with probabilities float32 [2, H, W] and masks bool [N, H, W]."""

    file: Path
    threads: int


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure on drawn segments; there is one size, 1080p with 200 segments."""
    with TemporaryDirectory(prefix="maskrt-bench-") as folder:
        work = Work(Path(folder) / "voting.npz", options.threads or usable_cpus())
        np.savez(work.file, **_segments())
        contestants: dict[str, Factory] = {OURS: OurVotes(work), PEER: DenseVotes(work)}
        measured = run_pairs(contestants, options.pairs, options.warmup, report)
    ours, dense = measured.values[OURS], measured.values[PEER]
    identical = int((ours.argmax(1) == dense.argmax(1)).sum())
    equality = Equality(len(dense), identical, 0, len(dense) - identical, True, 0.0)
    notes = (
        f"{SEGMENTS} segments at 1920x1080, seed {SEED}: ellipses of 0.01% to 25% of the frame; two classes",
        f"equality counts segments by their winning class; votes differ by at most {np.abs(ours - dense).max():.2g} "
        "pixels, since ours are counted in multiples of 2**-24",
    )
    return assemble("voting", options, {SIZE: measured}, {SIZE: equality_counts(equality, 0)}, notes)


def _segments() -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    height, width = 1080, 1920
    occlusion = rng.random((height, width), dtype=np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    masks = np.zeros((SEGMENTS, height, width), np.bool_)
    for mask in masks:
        radius = np.sqrt(10 ** rng.uniform(-4, -0.6) * height * width / np.pi)
        stretch = rng.uniform(0.6, 1.6)
        across, down = (x - rng.uniform(0, width)) / stretch, (y - rng.uniform(0, height)) * stretch
        mask[:] = across * across + down * down < radius * radius
    return {"probabilities": np.stack([1 - occlusion, occlusion]), "masks": masks}


@dataclass(frozen=True)
class OurVotes:
    """kernels/voting on run lengths."""

    work: Work

    def __call__(self) -> Callable[[], tuple[dict[str, float], Votes]]:
        """Load and encode."""
        import numba

        from maskrt.kernels.voting import count_votes, runs_of

        numba.set_num_threads(self.work.threads)
        values = np.load(self.work.file)
        probabilities = values["probabilities"]
        counts = [encode_rle(mask)["counts"] for mask in values["masks"]]

        def iterate() -> tuple[dict[str, float], Votes]:
            votes = np.empty((len(counts), len(probabilities)), np.float64)
            count_votes(probabilities, runs_of(counts), votes)
            return {}, votes

        return iterate


@dataclass(frozen=True)
class DenseVotes:
    """A sum over the pixels of each mask."""

    work: Work

    def __call__(self) -> Callable[[], tuple[dict[str, float], Votes]]:
        """Load."""
        values = np.load(self.work.file)
        probabilities, masks = values["probabilities"], values["masks"]

        def iterate() -> tuple[dict[str, float], Votes]:
            return {}, np.stack([probabilities[:, mask].sum(axis=1, dtype=np.float64) for mask in masks])

        return iterate
