"""Traces, which show where a mask goes wrong: a folder for every frame with what each network took and gave.

DIR/FRAME/index.json      every run of a network in order: role, shapes, value ranges, seconds, error; the frame's
                          timings, and its error where it has one
DIR/FRAME/ROLE-001.npz    the arrays of the first runs of each network: `in.NAME` and `out.NAME`
DIR/FRAME/input.png       the region of interest as the pipeline saw it
DIR/FRAME/result.npz      mask, label, probability

A trace holds pictures. It is written only if the user asks for it.
"""

import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.batching import attempt
from maskrt.runtime.engines.recorder import Run, recorded_session
from maskrt.runtime.engines.session import Array, Session
from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.files import cannot_write, write_bytes
from maskrt.runtime.io.sinks import png_bytes
from maskrt.runtime.pipelines.base import FramePipeline, Outcomes, View, view_of
from maskrt.runtime.types import Frame, Result, Roi

KEPT_RUNS = 4  # runs of a network and frame whose arrays are kept: SAM's decoder runs hundreds of times a frame


class ArraySummary(msgspec.Struct, frozen=True):
    """The summary of an array; least, most and mean are None if it is empty."""

    shape: tuple[int, ...]
    dtype: str
    least: float | None
    most: float | None
    mean: float | None


class RunSummary(msgspec.Struct, frozen=True):
    """The summary of one run of a network; file: its arrays, None if they are not kept; error: None if it went well."""

    role: str
    number: int
    file: str | None
    seconds: float
    error: str | None
    inputs: dict[str, ArraySummary]
    outputs: dict[str, ArraySummary]


class FrameTrace(msgspec.Struct, frozen=True):
    """The content of index.json."""

    name: str
    roi_xywh: Roi | None
    error: str | None
    timings_ms: dict[str, float]
    segments: int | None
    runs: tuple[RunSummary, ...]


class Tracer:
    """A collector of the runs of one frame at a time.

    `wrap_session` goes to the pipeline; a TracedPipeline says which frame it works on.
    """

    def __init__(self, folder: Path) -> None:
        """Take a new or empty folder.

        Raises:
            InputError: the folder is a file, or holds something.
        """
        if folder.exists() and (not folder.is_dir() or any(os.scandir(folder))):
            raise InputError(f"{folder} exists and is not an empty folder: choose a new one for --trace")
        self._folder = folder
        self._name = ""
        self._runs: list[RunSummary] = []
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def wrap_session(self, role: str, session: Session) -> Session:
        """Return a session whose runs are traced."""
        return recorded_session(role, session, self)

    def begin(self, name: str) -> None:
        """Begin with the frame of a name.

        Raises:
            MaskrtError: its folder is there, since another run writes to the same place, or it cannot be made.
        """
        self._name, self._runs, self._counts = name, [], {}
        folder = self._folder / name
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise MaskrtError(f"{folder} exists: another run writes there, choose another --trace") from error
        except OSError as error:
            raise cannot_write(folder, error) from error

    def add(self, role: str, run: Run) -> None:
        """Record one run of the current frame; the threads of a decoder may call it at the same time.

        Raises:
            MaskrtError: it cannot be written.
        """
        with self._lock:
            number = self._counts[role] = self._counts.get(role, 0) + 1
        file = f"{role}-{number:03d}.npz" if number <= KEPT_RUNS else None
        if file is not None:
            arrays = {f"in.{name}": value for name, value in run.feeds.items()}
            arrays |= {f"out.{name}": value for name, value in run.outputs.items()}
            self._write(file, arrays)
        inputs, outputs = ({name: summary(value) for name, value in side.items()} for side in (run.feeds, run.outputs))
        with self._lock:  # in the order in which they ended
            self._runs.append(RunSummary(role, number, file, round(run.seconds, 6), run.error, inputs, outputs))

    def end(self, view: View | None, found: Result | MaskrtError) -> None:
        """Write the frame's picture, its result and index.json.

        Raises:
            MaskrtError: they cannot be written.
        """
        result = found if isinstance(found, Result) else None
        if view is not None:
            write_bytes(self._folder / self._name / "input.png", png_bytes(view.rgb))
        if result is not None:
            self._write("result.npz", {"mask": result.mask, "label": result.label, "probability": result.probability})
        trace = FrameTrace(
            name=self._name,
            roi_xywh=None if view is None else view.roi_xywh,
            error=None if result is not None else str(found),
            timings_ms={} if result is None else result.timings_ms,
            segments=None if result is None else len(result.segments),
            runs=tuple(self._runs),
        )
        text = msgspec.json.format(msgspec.json.encode(trace), indent=2) + b"\n"
        write_bytes(self._folder / self._name / "index.json", text)

    def _write(self, file: str, arrays: dict[str, NDArray[Any]]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes a keyword for an option
        write_bytes(self._folder / self._name / file, buffer.getvalue())


class TracedPipeline:
    """A pipeline whose frames are traced, one after the other; the caller closes the pipeline inside."""

    def __init__(self, pipeline: FramePipeline, tracer: Tracer) -> None:
        self._pipeline, self._tracer = pipeline, tracer

    def batch(self, frames: Sequence[Frame | NDArray[np.uint8]], rois: Sequence[Roi | None]) -> Outcomes:
        """Segment frames as the pipeline does, each by itself, and write a folder for each."""
        return [self._traced(frame, roi) for frame, roi in zip(frames, rois, strict=True)]

    def _traced(self, frame: Frame | NDArray[np.uint8], roi: Roi | None) -> Any:
        named = frame if isinstance(frame, Frame) else Frame(frame)
        try:
            view = view_of(named, roi)
        except InputError:
            view = None
        self._tracer.begin(named.name)
        found = attempt(lambda: self._pipeline.batch([named], [roi])[0])  # its error is not that of the next frame
        self._tracer.end(view, found)
        return found


def summary(array: Array) -> ArraySummary:
    """Return shape, type and range of an array."""
    numbers = (float(array.min()), float(array.max()), float(array.mean())) if array.size else (None, None, None)
    return ArraySummary(array.shape, str(array.dtype), *numbers)
