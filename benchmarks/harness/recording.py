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
    """Frames on disk. frames: a .npy of uint8 [N, H, W, 3]; rois: the region of interest of each."""

    frames: Path
    rois: tuple[Roi, ...]


@dataclass(frozen=True)
class Setup:
    """How a contestant runs a bundle. threads: of each network and kernel while it runs; None: each chooses its own."""

    bundle: Path
    recording: Recording
    provider: str
    threads: int | None


def draw_recording(first_seed: int, count: int, file: Path, size_wh: tuple[int, int] = (1920, 1080)) -> Recording:
    """Draw scenes as a camera above a bed would see them, frame by frame.

    Args:
        file: the .npy to write.
    """
    from maskrt.benchmarks.scenes.bedside import draw_scene

    scenes = [draw_scene(seed, size_wh) for seed in range(first_seed, first_seed + count)]
    np.save(file, np.stack([scene.rgb for scene in scenes]))
    return Recording(file, tuple(scene.roi_xywh for scene in scenes))


def of_one_size(recording: Recording) -> Recording:
    """Give every frame a region of the mean size, about the middle of its own region and moved into the frame."""
    frame_wh = np.load(recording.frames, mmap_mode="r").shape[2:0:-1]
    rois = np.array(recording.rois)
    size_wh = rois[:, 2:].mean(axis=0).round().astype(int)
    corners = np.clip(rois[:, :2] + (rois[:, 2:] - size_wh) // 2, 0, np.array(frame_wh) - size_wh)
    width, height = size_wh.tolist()
    return Recording(recording.frames, tuple((x, y, width, height) for x, y in corners.tolist()))


@dataclass(frozen=True)
class FrameByFrame:
    """Run the next frame in each iteration, and the first again after the last."""

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
    """Run one process's share of a recording in each iteration: `streams` threads with one pipeline.

    batch: the frames that each thread gives the pipeline at a time.
    """

    setup: Setup
    indices: tuple[int, ...]
    streams: int
    batch: int = 1

    def __call__(self) -> Callable[[], tuple[dict[str, float], Labels]]:
        """Load the bundle."""
        from maskrt.runtime.batching import unwrap

        pipeline, frames = load_setup(self.setup)
        pool = ThreadPoolExecutor(self.streams)

        rois = self.setup.recording.rois
        batches = [self.indices[first : first + self.batch] for first in range(0, len(self.indices), self.batch)]

        def labels(batch: tuple[int, ...]) -> list[NDArray[np.uint8]]:
            results = pipeline.batch([frames[index] for index in batch], [rois[index] for index in batch])
            return [unwrap(result).label for result in results]

        def iterate() -> tuple[dict[str, float], Labels]:
            found = (label for several in pool.map(labels, batches) for label in several)
            return {}, dict(zip(self.indices, found, strict=True))

        return iterate


def load_setup(setup: Setup, **options: Any) -> tuple[Any, NDArray[np.uint8]]:
    """Open the pipeline as `maskrt run` does with these settings, and read the frames into memory."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as maskrt.cli.main, before the kernels load their threads
    from maskrt.runtime.kinds.open import open_pipeline

    return open_pipeline(setup.bundle, setup.provider, setup.threads, settings=options), np.load(setup.recording.frames)
