"""Both sides of `soss` as factories that a worker calls. Nothing heavy is imported here: ours must not see PyTorch."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.types import Labels, Roi, Segments

Ours = tuple[Segments, Labels]  # segments in the frame, label in the frame
Upstream = tuple[list[dict[str, Any]], NDArray[np.uint8]]  # records in the ROI, label in the frame


@dataclass(frozen=True)
class Workload:
    """The input of both sides. frame: .npy of uint8 [H, W, 3]; segmenter, sam: KIND:FILE, the bundle's own weights."""

    bundle: Path
    segmenter: str
    sam: str
    frame: Path
    roi: Roi
    points_per_side: int
    threads: int


@dataclass(frozen=True)
class OurContestant:
    """maskrt on the bundle."""

    work: Workload

    def __call__(self) -> Callable[[], tuple[dict[str, float], Ours]]:
        """Load the bundle. An iteration raises MaskrtError if anything has loaded PyTorch in this process."""
        import numba

        from maskrt.runtime.kinds.open import open_pipeline

        work = self.work
        if work.threads > numba.config.NUMBA_NUM_THREADS:
            raise InputError(f"--threads {work.threads}: Numba has {numba.config.NUMBA_NUM_THREADS} here, give no more")
        numba.set_num_threads(work.threads)
        pipeline = open_pipeline(work.bundle, threads=work.threads, settings={"points_per_side": work.points_per_side})
        rgb = np.load(work.frame)

        def iterate() -> tuple[dict[str, float], Ours]:
            result = pipeline(rgb, work.roi)
            if "torch" in sys.modules:
                raise MaskrtError(
                    "PyTorch is loaded in maskrt's worker, so the lean runtime is not what is measured: report this"
                )
            return result.timings_ms, (result.segments, result.label)

        return iterate


@dataclass(frozen=True)
class UpstreamContestant:
    """segment_anything's generator and dense voting, on the checkpoints that the bundle was made from.

    engine: "pytorch" or "onnxruntime", which runs the networks.
    """

    work: Workload
    engine: str

    def __call__(self) -> Callable[[], tuple[dict[str, float], Upstream]]:
        """Load the checkpoints."""
        import cv2
        import torch

        from maskrt.benchmarks.peers.onnxruntime_loop import onnxruntime_loop
        from maskrt.benchmarks.peers.sam_upstream import upstream_generator
        from maskrt.benchmarks.peers.soss_upstream import SossUpstream
        from maskrt.export.architectures.kinds import load_architecture
        from maskrt.export.bundles.sams import read_sam
        from maskrt.runtime.bundle.bundle import open_bundle
        from maskrt.runtime.bundle.manifest import SossManifest
        from maskrt.runtime.bundle.settings import with_overrides

        work = self.work
        torch.set_num_threads(work.threads)
        cv2.setNumThreads(work.threads)
        bundle = open_bundle(work.bundle)
        manifest = bundle.expect(SossManifest)
        masks = with_overrides(manifest.masks, {"points_per_side": work.points_per_side})
        kind, _, file = work.segmenter.partition(":")
        sam, _ = read_sam(work.sam)
        if self.engine == "onnxruntime":
            peer = onnxruntime_loop(bundle, sam, masks, work.threads)
        else:
            segmenter = load_architecture(kind, Path(file)).eval()
            peer = SossUpstream(segmenter, upstream_generator(sam, masks), manifest)
        rgb = np.load(work.frame)
        return lambda: ({}, peer(rgb, work.roi))
