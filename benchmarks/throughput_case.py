"""The case `throughput`: frames per second over a recording, with several processes and streams on one machine.

A stream is a thread; the streams of a process share its pipeline, so its models are in memory once. Processes share the
recording frame by frame. The cores are divided: a network or kernel may use cores / (processes x streams) of them, at
least one, since several that use all of them wait for each other. The peer is one process with one stream and every
choice left to the engine. Batches of frames would be a third way; segmenter and encoder take one frame.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from maskrt.benchmarks.cases import BenchOptions
from maskrt.benchmarks.demo import BUNDLE, HELD_OUT
from maskrt.benchmarks.measure import Measured, Spread, run_pairs
from maskrt.benchmarks.recording import Labels, Recording, Setup, Share, draw_recording
from maskrt.benchmarks.report_json import CaseReport, EqualityCounts, environment, total
from maskrt.benchmarks.soss_models import Report, require
from maskrt.runtime.bundle import open_bundle, soss_manifest
from maskrt.runtime.doctor import examine
from maskrt.runtime.errors import InputError
from maskrt.runtime.session import usable_cpus

NEEDS = ("cv2", "onnxruntime")
PEER = "1 process, 1 stream"


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure the peer and every combination asked for, in turns; each pair is the whole recording.

    Raises:
        ModuleNotFoundError: a module of the extras is missing.
        InputError: more processes than frames, or streams where kernels cannot run side by side.
        BundleError: the bundle cannot be used.
        WorkerError: the provider is not there, or failed.
    """
    require(NEEDS)
    bundle = options.bundle or BUNDLE
    soss_manifest(open_bundle(bundle))
    check(options)
    with TemporaryDirectory(prefix="maskrt-bench-") as folder:
        recording = draw_recording(HELD_OUT, options.frames, Path(folder) / "frames.npy")
        report(f"{options.frames} scenes drawn")
        measured = run_pairs(crews(bundle, recording, options), options.pairs, options.warmup, report)
    rows = [msgspec.structs.replace(row, frames_per_s=options.frames / row.median_s) for row in measured.rows]
    equality = {name: compare(measured.values[PEER], measured.values[name]) for name in measured.ratios}
    return CaseReport(
        case="throughput",
        environment=environment(options.threads or usable_cpus()),
        rows=tuple(rows),
        ratios=gains(measured),
        equality=total(equality),
        equality_by_size=equality,
        notes=notes(bundle, options),
    )


def notes(bundle: Path, options: BenchOptions) -> tuple[str, ...]:
    """What a reader must know to understand the figures."""
    return (
        f"{options.providers[0]}, {options.frames} held-out scenes at 1920x1080 (seeds {HELD_OUT} to "
        f"{HELD_OUT + options.frames - 1}) with their regions of interest, in memory; times are of all of them",
        f"bundle: {bundle.name}, {open_bundle(bundle).manifest.note or 'no note'}",
        f"{PEER}: threads as the engine chooses; others: cores / (processes x streams) each, the streams of a "
        "process with one pipeline",
        f"ratio A_vs_peer: the time of {PEER} / that of A, measured in turns: above 1, A has the more frames per "
        "second",
        "equality: label maps, frame by frame, against the peer's",
        "batch: not measured, since segmenter and encoder take one picture at a time",
        f"{options.pairs} pairs after {options.warmup} warm-ups; only one contestant working at a time",
        "peak_rss_mb: of all processes of a contestant, with their models",
    )


def check(options: BenchOptions) -> None:
    """Refuse what cannot be measured, before minutes go into it.

    Raises:
        InputError: see `run`.
    """
    if len(options.providers) != 1:
        raise InputError(f"throughput takes one provider at a time, not {', '.join(options.providers)}")
    most = max(options.processes) * max(options.streams)
    if options.frames < most:
        raise InputError(f"{options.frames} frames for up to {most} streams: some would have none; set --frames")
    layers = examine(providers=()).numba_threading_layers
    if max(options.streams) > 1 and not {"tbb", "omp"} & set(layers):
        raise InputError(
            "kernels of several streams need Numba's TBB or OpenMP threads, which do not load: --streams 1"
        )


def crews(bundle: Path, recording: Recording, options: BenchOptions) -> dict[str, Sequence[Share]]:
    """Name -> the processes of a contestant, the peer first."""
    cores, every = options.threads or usable_cpus(), range(len(recording.rois))
    found: dict[str, Sequence[Share]] = {}
    for processes, streams in [(1, 1), *product(options.processes, options.streams)]:
        threads = options.threads if processes * streams == 1 else max(1, cores // (processes * streams))
        setup = Setup(bundle, recording, options.providers[0], threads)
        name = f"{processes} process{'es' * (processes > 1)}, {streams} stream{'s' * (streams > 1)}"
        found[name] = [Share(setup, tuple(every[first::processes]), streams) for first in range(processes)]
    return found


def gains(measured: Measured) -> dict[str, Spread]:
    """How many times as many frames per second as the peer each of the others has, pair by pair."""
    return {f"{name}_vs_peer": measured.ratio(PEER, name) for name in measured.ratios}


def compare(peer: Sequence[Labels], others: Sequence[Labels]) -> EqualityCounts:
    """The label maps of two contestants, whose processes have different frames."""
    expected, found = merged(peer), merged(others)
    differing = [int(np.count_nonzero(expected[index] != found[index])) for index in expected]
    different = sum(count > 0 for count in differing)
    return EqualityCounts(len(expected), len(expected) - different, 0, different, sum(differing), True, 0.0)


def merged(labels: Sequence[Mapping[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """The frames of all processes, in order."""
    return dict(sorted((index, label) for share in labels for index, label in share.items()))
