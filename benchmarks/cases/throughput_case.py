"""The case `throughput`: frames per second over a recording, with several processes, streams and batches.

A stream is a thread; the streams of a process share its pipeline, so its models are in memory once. Processes share the
recording frame by frame. The cores are divided: a network or kernel may use cores / (processes x streams) of them, at
least one, because networks that each use all cores wait for each other. A batch is the number of frames that a stream
gives the pipeline at a time. The peer is one process with one stream, frame by frame; the engine chooses its threads.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from maskrt.benchmarks.cases.soss_models import require
from maskrt.benchmarks.harness.measure import Measured, Spread, run_pairs
from maskrt.benchmarks.harness.recording import Labels, Recording, Setup, Share, draw_recording, of_one_size
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, EqualityCounts, environment, total
from maskrt.benchmarks.reports.demo import HELD_OUT, demo_bundle
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.doctor import examine
from maskrt.runtime.errors import InputError
from maskrt.runtime.types import Report

NEEDS = ("cv2", "onnxruntime")
PEER = "1 process, 1 stream"
Crew = tuple[int, int, int]  # processes, streams in each, frames at a time in each stream
# Measured where no option asks for others: each of the three by itself, and processes with streams.
USUAL: tuple[Crew, ...] = ((1, 1, 2), (1, 1, 4), (1, 2, 1), (2, 1, 1), (2, 2, 1))


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure the peer and every requested combination in turns. Each pair is the whole recording.

    Raises:
        ModuleNotFoundError: a module of the extras is missing.
        InputError: there are more processes than frames, or streams where kernels cannot run in parallel.
        BundleError: the bundle cannot be used.
        WorkerError: the provider is not there, or failed.
    """
    require(NEEDS)
    bundle = options.bundle or demo_bundle()
    open_bundle(bundle).expect(SossManifest)
    check(options)
    with TemporaryDirectory(prefix="maskrt-bench-") as folder:
        recording = of_one_size(draw_recording(HELD_OUT, options.frames, Path(folder) / "frames.npy"))
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
        notes=notes(bundle, recording, options),
    )


def asked(options: BenchOptions) -> tuple[Crew, ...]:
    """Return the crews beside the peer: every combination of the given options, or USUAL where none is given."""
    if not (options.processes or options.streams or options.batch):
        return USUAL
    given = (options.processes or (1,), options.streams or (1,), options.batch or (1,))
    return tuple(crew for crew in product(*given) if crew != (1, 1, 1))


def notes(bundle: Path, recording: Recording, options: BenchOptions) -> tuple[str, ...]:
    """Return the notes that a reader needs to understand the figures."""
    _, _, width, height = recording.rois[0]
    return (
        f"{options.providers[0]}, {options.frames} held-out scenes at 1920x1080 (seeds {HELD_OUT} to "
        f"{HELD_OUT + options.frames - 1}) in memory, each with a region of interest of {width}x{height} about its "
        "own, as of a camera that stays; times are of all of them",
        f"bundle: {bundle.name}, {open_bundle(bundle).manifest.note or 'no note'}",
        f"{PEER}: threads as the engine chooses; others: cores / (processes x streams) each, the streams of a "
        "process with one pipeline",
        f"ratio A_vs_peer: the time of {PEER} / that of A, measured in turns: above 1, A has the more frames per "
        "second",
        "equality: label maps, frame by frame, against the peer's",
        "batch N: N frames at a time in each stream; the encoder takes them together, as their regions have one size",
        f"{options.pairs} pairs after {options.warmup} warm-ups; only one contestant working at a time",
        "peak_rss_mb: of all processes of a contestant, with their models",
    )


def check(options: BenchOptions) -> None:
    """Refuse a combination that cannot be measured, before anything is measured.

    Raises:
        InputError: see `run`.
    """
    if len(options.providers) != 1:
        raise InputError(f"throughput takes one provider at a time, not {', '.join(options.providers)}")
    crews = asked(options)
    most = max((processes * streams * batch for processes, streams, batch in crews), default=1)
    if options.frames < most:
        raise InputError(f"{options.frames} frames are too few for {most} at a time: give --frames {most} or more")
    layers = examine(providers=()).numba_threading_layers
    if any(streams > 1 for _, streams, _ in crews) and not {"tbb", "omp"} & set(layers):
        raise InputError(
            "kernels of several streams need Numba's TBB or OpenMP threads, which do not load: use --streams 1"
        )


def crews(bundle: Path, recording: Recording, options: BenchOptions) -> dict[str, Sequence[Share]]:
    """Return name -> the processes of a contestant, the peer first."""
    cores, every = options.threads or usable_cpus(), range(len(recording.rois))
    found: dict[str, Sequence[Share]] = {}
    for processes, streams, batch in ((1, 1, 1), *asked(options)):
        threads = options.threads if processes * streams == 1 else max(1, cores // (processes * streams))
        setup = Setup(bundle, recording, options.providers[0], threads)
        name = f"{processes} process{'es' * (processes > 1)}, {streams} stream{'s' * (streams > 1)}"
        name += f", batch {batch}" * (batch > 1)
        found[name] = [Share(setup, tuple(every[first::processes]), streams, batch) for first in range(processes)]
    return found


def gains(measured: Measured) -> dict[str, Spread]:
    """Return, for each of the others, its frames per second over the peer's, pair by pair."""
    return {f"{name}_vs_peer": measured.ratio(PEER, name) for name in measured.ratios}


def compare(peer: Sequence[Labels], others: Sequence[Labels]) -> EqualityCounts:
    """Compare the label maps of two contestants, whose processes have different frames."""
    expected, found = merged(peer), merged(others)
    differing = [int(np.count_nonzero(expected[index] != found[index])) for index in expected]
    different = sum(count > 0 for count in differing)
    return EqualityCounts(len(expected), len(expected) - different, 0, different, sum(differing), True, 0.0)


def merged(labels: Sequence[Mapping[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """Put the frames of all processes in order."""
    return dict(sorted((index, label) for share in labels for index, label in share.items()))
