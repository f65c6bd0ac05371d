"""The loop that takes frames from a source through a pipeline into a sink."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

from maskrt.runtime.batching import attempt
from maskrt.runtime.errors import InputError, NetworkError
from maskrt.runtime.io.regions import RoiOf
from maskrt.runtime.io.sinks import Sink
from maskrt.runtime.io.sources import Source
from maskrt.runtime.region import checked_roi
from maskrt.runtime.types import BadFrame, Frame, Result, Roi

SOME_FRAMES_FAILED = 3


class Pipeline(Protocol):
    """A pipeline as this loop needs it: it turns each of several frames into its result or its own error."""

    def batch(
        self, frames: Sequence[Frame], rois: Sequence[Roi | None]
    ) -> list[Result | InputError | NetworkError]: ...


@dataclass(frozen=True)
class Outcome:
    """The outcome of one frame; reason: why it failed."""

    name: str
    status: Literal["done", "skipped", "failed"]
    reason: str | None = None


@dataclass
class Summary:
    """Counts of frames; skipped: done by an earlier run."""

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
    batch: int = 1,
) -> Summary:
    """Segment every frame of a source.

    A frame that cannot be read or segmented is recorded as failed, and the run goes on.

    Args:
        pipeline, source, sink: opened; the caller closes them.
        roi: x, y, width, height for all frames; a function from a frame's name to them; or None for whole frames.
        resume: skip the frames that the sink says are done.
        progress: called with the outcome of every frame, in the source's order.
        batch: how many frames are read, segmented and written at a time; no more are held in memory.

    Raises:
        MaskrtError: something stops all frames, such as a full disk.
    """
    summary = Summary()
    items = iter(source)
    while several := list(islice(items, batch)):
        for outcome in _outcomes(pipeline, several, sink, roi, resume):
            setattr(summary, outcome.status, getattr(summary, outcome.status) + 1)
            progress(outcome)
        several.clear()  # otherwise these frames stay in memory while the next are read
    return summary


def _outcomes(
    pipeline: Pipeline, items: Sequence[Frame | BadFrame], sink: Sink, roi: Roi | RoiOf | None, resume: bool
) -> Iterator[Outcome]:
    """Yield the outcome of each item in order; the frames among them are segmented together."""
    planned = [_planned(item, sink, roi, resume) for item in items]
    answers = iter(_answers(pipeline, [plan for plan in planned if isinstance(plan, tuple)]))
    for item, plan in zip(items, planned, strict=True):
        if isinstance(plan, Outcome):
            yield plan
            continue
        answer = plan if isinstance(plan, InputError) else next(answers)
        if isinstance(item, Frame) and isinstance(answer, Result):
            sink.write(item, answer)
            yield Outcome(item.name, "done")
        else:
            sink.write_failure(item, str(answer))
            yield Outcome(item.name, "failed", str(answer))


def _planned(
    item: Frame | BadFrame, sink: Sink, roi: Roi | RoiOf | None, resume: bool
) -> tuple[Frame, Roi] | Outcome | InputError:
    """Return a frame and its region, or why there is nothing to segment."""
    if isinstance(item, BadFrame):
        return InputError(item.reason)
    try:
        sink.check(item.name)
        checked = checked_roi(item.rgb, roi(item.name) if callable(roi) else roi)
    except InputError as error:
        return error
    done = resume and sink.is_done(item, checked)
    return Outcome(item.name, "skipped") if done else (item, checked)


def _answers(pipeline: Pipeline, planned: Sequence[tuple[Frame, Roi]]) -> Sequence[Result | InputError | NetworkError]:
    """Return each frame's result or error. A batch that stops is tried again frame by frame: one may be the cause."""
    if not planned:
        return []
    found = attempt(lambda: pipeline.batch([frame for frame, _ in planned], [roi for _, roi in planned]))
    if not isinstance(found, InputError | NetworkError):
        return found
    return [found] if len(planned) == 1 else [answer for plan in planned for answer in _answers(pipeline, [plan])]
