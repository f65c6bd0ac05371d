"""The loop from a source through a pipeline into a sink."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from maskrt.runtime.errors import InputError, NetworkError
from maskrt.runtime.region import checked_roi
from maskrt.runtime.sinks import Sink
from maskrt.runtime.sources import BadFrame, Source
from maskrt.runtime.types import Frame, Result, Roi

SOME_FRAMES_FAILED = 3
RoiOf = Callable[[str], Roi | None]


class Pipeline(Protocol):
    """What the loop needs of a pipeline."""

    def __call__(self, frame: Frame, roi: Roi | None = None) -> Result: ...


@dataclass(frozen=True)
class Outcome:
    """What happened to one frame."""

    source: str
    status: Literal["done", "skipped", "failed"]
    reason: str | None = None


@dataclass
class Summary:
    """Counts of frames. skipped: done by an earlier run."""

    done: int = 0
    skipped: int = 0
    failed: int = 0

    @property
    def exit_code(self) -> int:
        """0, or 3 when some frames have no result."""
        return SOME_FRAMES_FAILED if self.failed else 0


def run_batch(
    pipeline: Pipeline,
    source: Source,
    sink: Sink,
    roi: Roi | RoiOf | None = None,
    resume: bool = False,
    progress: Callable[[Outcome], None] = lambda outcome: None,
) -> Summary:
    """Segment every frame of a source.

    A frame that cannot be read or segmented is recorded as failed and the run goes on.

    Args:
        pipeline, source, sink: opened; the caller closes them.
        roi: x, y, width, height for all frames; a function from a frame's name; or None for whole frames.
        resume: skip the frames that the sink says are done.
        progress: told of every frame.

    Raises:
        MaskrtError: what stops all frames, such as a full disk.
    """
    summary = Summary()
    for item in source:
        outcome = _one(pipeline, item, sink, roi, resume)
        setattr(summary, outcome.status, getattr(summary, outcome.status) + 1)
        progress(outcome)
    return summary


class _RoiFile(msgspec.Struct):
    """The part of DIR/STEM.json that matters here; `maskrt scenes` writes more beside it."""

    roi_xywh: Roi


def roi_reader(folder: Path) -> RoiOf:
    """A function from a frame's name to `roi_xywh` in FOLDER/NAME.json.

    Raises:
        InputError: no such folder; the function raises it for a missing or unreadable file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it should hold a STEM.json with roi_xywh per image")

    def read(source: str) -> Roi | None:
        file = folder / f"{source}.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=_RoiFile).roi_xywh
        except FileNotFoundError as error:
            raise InputError(f"{file}: no such file; --roi-from needs one per image") from error
        except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
            raise InputError(f'{file}: {error}; expected {{"roi_xywh": [X, Y, WIDTH, HEIGHT]}}') from error

    return read


def _one(pipeline: Pipeline, item: Frame | BadFrame, sink: Sink, roi: Roi | RoiOf | None, resume: bool) -> Outcome:
    if isinstance(item, BadFrame):
        sink.write_failure(item, item.reason)
        return Outcome(item.source, "failed", item.reason)
    try:
        checked = checked_roi(item.rgb, roi(item.source) if callable(roi) else roi)
        if resume and sink.is_done(item, checked):
            return Outcome(item.source, "skipped")
        result = pipeline(item, checked)
    except (InputError, NetworkError) as error:
        sink.write_failure(item, str(error))
        return Outcome(item.source, "failed", str(error))
    sink.write(item, result)
    return Outcome(item.source, "done")
