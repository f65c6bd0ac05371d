"""Frames for `latency` and `throughput`, and the contestants that run a pipeline on them.

Nothing heavy is imported here: a worker imports this module before its environment is set.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.types import Roi

Labels = dict[int, NDArray[np.uint8]]  # frame -> label map [H, W]


@dataclass(frozen=True)
class Recording:
    """frames: a .npy of uint8 [N, H, W, 3]; rois: the region of interest of each."""

    frames: Path
    rois: tuple[Roi, ...]


@dataclass(frozen=True)
class Setup:
    """How a contestant runs a bundle. threads: of a network or kernel while it runs; None leaves the choice to each."""

    bundle: Path
    recording: Recording
    provider: str
    threads: int | None


def draw_recording(first_seed: int, count: int, file: Path, size_wh: tuple[int, int] = (1920, 1080)) -> Recording:
    """Draw scenes as a camera above beds would see them, frame by frame.

    Args:
        file: the .npy to write.
    """
    from maskrt.benchmarks.scenes import draw_scene

    scenes = [draw_scene(seed, size_wh) for seed in range(first_seed, first_seed + count)]
    np.save(file, np.stack([scene.rgb for scene in scenes]))
    return Recording(file, tuple(scene.roi_xywh for scene in scenes))


@dataclass(frozen=True)
class FrameByFrame:
    """The next frame in each iteration, and the first again after the last."""

    setup: Setup

    def __call__(self) -> Callable[[], tuple[dict[str, float], None]]:
        """Load the bundle."""
        pipeline, frames = load_setup(self.setup)
        rois = self.setup.recording.rois
        done = 0

        def iterate() -> tuple[dict[str, float], None]:
            nonlocal done
            index = done % len(rois)
            done += 1
            return pipeline(frames[index], rois[index]).timings_ms, None

        return iterate


@dataclass(frozen=True)
class Share:
    """One process's share of a recording in each iteration: `streams` threads with one pipeline."""

    setup: Setup
    indices: tuple[int, ...]
    streams: int

    def __call__(self) -> Callable[[], tuple[dict[str, float], Labels]]:
        """Load the bundle."""
        pipeline, frames = load_setup(self.setup)
        pool = ThreadPoolExecutor(self.streams)

        def label(index: int) -> NDArray[np.uint8]:
            return pipeline(frames[index], self.setup.recording.rois[index]).label

        def iterate() -> tuple[dict[str, float], Labels]:
            return {}, dict(zip(self.indices, pool.map(label, self.indices), strict=True))

        return iterate


def load_setup(setup: Setup, **options: Any) -> tuple[Any, NDArray[np.uint8]]:
    """The pipeline, as `maskrt run` would have it with these settings, and the frames in memory."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as maskrt.cli.main, before the kernels load their threads
    from maskrt.runtime.pipeline import open_pipeline

    return open_pipeline(setup.bundle, setup.provider, setup.threads, **options), np.load(setup.recording.frames)
