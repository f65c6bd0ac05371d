"""Measures clicks with and without learning: a simulated user clicks on each object until its mask is good enough.

There are two protocols. "paper" is the source document's. "wseseg" follows the later public code of its authors where
that differs and where settings can: steps after clicks are never undone (it puts back a reference to the live weights),
an object that took all clicks has failed even if the last one sufficed, and it teaches nothing in the end.

Source: Schön et al. 2024, section 4.1; evaluator.py of https://github.com/Schorob/wseseg, as of its commit 7e3fc08.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.evaluation.click_metrics import Limit, mask_iou
from maskrt.runtime.evaluation.click_objects import ClickPicture, Planned
from maskrt.runtime.evaluation.click_sequence import (
    ClickSequence,
    ObjectRecord,
    ProtocolName,
    SequenceSettings,
    SessionState,
    read_sequence,
    write_sequence,
)
from maskrt.runtime.evaluation.simulated_user import next_click
from maskrt.runtime.interactive.clicks import Click

# Name -> settings of open_interactive that say what is learnt from; in the order of the source document's tables, where
# CA is click_adaptation, RM is result_mask and CM is click_mask. R and C name click_adaptation, E and U result_mask; x
# means that click_mask is on. R+E+x is the whole method; none learns nothing.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "none": {"click_adaptation": "off", "result_mask": "off", "click_mask": False},
    "R+E+x": {"click_adaptation": "R", "result_mask": "E", "click_mask": True},
    "R": {"click_adaptation": "R", "result_mask": "off", "click_mask": False},
    "C": {"click_adaptation": "C", "result_mask": "off", "click_mask": False},
    "E": {"click_adaptation": "off", "result_mask": "E", "click_mask": False},
    "x": {"click_adaptation": "off", "result_mask": "off", "click_mask": True},
    "R+x": {"click_adaptation": "R", "result_mask": "off", "click_mask": True},
    "R+U+x": {"click_adaptation": "R", "result_mask": "U", "click_mask": True},
}
# The public code's R puts nothing back, so it is C; the last step follows as the configuration says.
WSESEG = {"R": "C"}
SAVE_EVERY = 5  # objects; a stop loses at most these


def learnt_from(name: str, protocol: ProtocolName) -> dict[str, Any]:
    """Return the settings of open_interactive for a configuration under a protocol."""
    options = CONFIGURATIONS[name]
    if protocol == "paper":
        return options
    return options | {"click_adaptation": WSESEG.get(options["click_adaptation"], options["click_adaptation"])}


class ClickSession(Protocol):
    """A session as the evaluation uses it; maskrt.runtime.interactive.session.InteractiveSession is one."""

    @property
    def steps(self) -> int: ...

    @property
    def skipped_steps(self) -> int: ...

    def set_image(self, rgb: NDArray[np.uint8]) -> None: ...

    def click(self, x: int, y: int, positive: bool = True) -> NDArray[np.bool_]: ...

    def accept(self) -> NDArray[np.bool_]: ...

    def give_up(self, learn: bool = True) -> None: ...

    def state(self) -> dict[str, NDArray[Any]]: ...

    def restore(self, state: SessionState) -> None: ...


def run_sequence(
    session: ClickSession,
    start: SessionState,
    planned: list[Planned],
    read: Callable[[list[Planned]], Iterable[ClickPicture]],
    limit: Limit,
    settings: SequenceSettings,
    file: Path,
    on_progress: Callable[[bool], None] = lambda worked: None,
) -> ClickSequence:
    """Segment all objects of all pictures in a row, starting from a fresh decoder; skip what the file already holds.

    Args:
        start: the state of a session that has learnt nothing.
        planned: the pictures, in order.
        read: reads some of them, in order.
        settings: what an existing file must have been made with.
        file: where to go on from; written every few objects, and at the end without the session's state.
        on_progress: called after every object, with False for objects of an earlier run.

    Raises:
        InputError: the file is damaged or has other settings; or a picture cannot be read.
        NetworkError: a network failed.
        MaskrtError: the file cannot be written.
    """
    sequence, state = read_sequence(file, settings)
    records = list(sequence.records)
    for _ in records:
        on_progress(False)
    left = _left(planned, len(records))
    if not left:
        return sequence
    session.restore(state if records else start)
    unsaved = 0
    for picture, labels in zip(read([picture for picture, _ in left]), (labels for _, labels in left), strict=True):
        session.set_image(picture.rgb)
        for label in labels:
            records.append(segment_object(session, picture, label, limit, settings))
            unsaved += 1
            if unsaved == SAVE_EVERY:
                write_sequence(file, _so_far(session, settings, records), session.state())
                unsaved = 0
            on_progress(True)
    whole = _so_far(session, settings, records)
    write_sequence(file, whole, {})
    return whole


def segment_object(
    session: ClickSession, picture: ClickPicture, label: int, limit: Limit, settings: SequenceSettings
) -> ObjectRecord:
    """Click until an object's mask reaches the IoU, then accept it; after the last click, do what the settings say."""
    truth = picture.truth == label
    mask, iou, seconds = np.zeros_like(truth), 0.0, 0.0
    clicked: list[Click] = []
    while len(clicked) < limit.clicks and not limit.reached(iou):
        click = next_click(mask, truth, clicked)
        if click is None:  # every wrong pixel has been clicked on, in vain
            break
        clicked.append(click)
        began = time.perf_counter()
        mask = session.click(click.x, click.y, click.positive)
        seconds += time.perf_counter() - began
        iou = mask_iou(mask, truth)
    began = time.perf_counter()
    too_late = settings.protocol == "wseseg" and len(clicked) >= limit.clicks
    if settings.failed == "accept" or (limit.reached(iou) and not too_late):
        session.accept()
    else:
        session.give_up(learn=settings.failed != "skip")
    seconds += time.perf_counter() - began
    return ObjectRecord(picture.planned.name, label, len(clicked), iou, seconds)


def _so_far(session: ClickSession, settings: SequenceSettings, records: list[ObjectRecord]) -> ClickSequence:
    return ClickSequence(settings, tuple(records), session.steps, session.skipped_steps)


def _left(planned: list[Planned], done: int) -> list[tuple[Planned, tuple[int, ...]]]:
    """Return the pictures that still have objects to do, and the labels of these objects."""
    left = []
    for picture in planned:
        labels = picture.labels[done:]
        done = max(0, done - len(picture.labels))
        if labels:
            left.append((picture, labels))
    return left
