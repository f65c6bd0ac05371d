"""The desk: one session, the current picture and the store, for any number of browsers."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from maskrt.runtime.annotate import states
from maskrt.runtime.annotate.annotator import Annotator
from maskrt.runtime.annotate.pictures import Opened, Picture, open_picture
from maskrt.runtime.annotate.store import FAILED_CLICKS, Store
from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.io.decoding import MAX_PIXELS
from maskrt.runtime.io.sinks import png_bytes
from maskrt.runtime.rle import encode_rle

BoxXyxy = tuple[int, int, int, int]
MOST_PROMPTS = 100  # of an object; those of people have up to 20, after which they count as failures


class StaleTurn(InputError):
    """The desk has changed since the browser saw it, so the browser must look again first."""


class Desk:
    """A desk, which takes one action after the other; each that may change something adds one to the turn."""

    def __init__(
        self, session: Annotator, pictures: Sequence[Picture], store: Store, max_pixels: int = MAX_PIXELS
    ) -> None:
        """Begin with the first class, at the first picture that has no object yet.

        Args:
            session: opened, without an image; the caller closes it.
            max_pixels: larger pictures are shown as unreadable.
        """
        self._session, self._pictures, self._store, self._max_pixels = session, tuple(pictures), store, max_pixels
        self._lock = threading.Lock()
        self._turn = 0
        self._last_ms: float | None = None
        self._prompts: list[BoxXyxy | None] = []  # prompts of the current object; None is a click
        self._unsaved: set[str] = set()
        session.use(store.classes[0])
        new = [at for at, picture in enumerate(self._pictures) if picture.name not in store.annotated]
        self._put(new[0] if new else 0)

    def state(self) -> states.State:
        """Return the state of the desk."""
        with self._lock:
            return self._state()

    def picture(self, index: int) -> bytes:
        """Return the current picture as a PNG file, upright and in 8 bits as the networks see it.

        Raises:
            StaleTurn: another picture is shown by now.
            InputError: it cannot be read.
        """
        with self._lock:
            if index != self._index:
                raise StaleTurn("another picture is shown by now")
            rgb = self._readable().rgb
        return png_bytes(rgb)

    def act(self, request: states.Request) -> states.State:
        """Carry out an action.

        Raises:
            StaleTurn: the turn has moved on; nothing was done.
            InputError: the action is not possible now.
            MaskrtError: a network or the disk failed.
        """
        with self._lock:
            if request.turn != self._turn:
                raise StaleTurn("another browser or an earlier action was faster: look again")
            try:
                with self._learning():
                    _ACTIONS[type(request.do)](self, request.do)
            finally:
                self._turn += not isinstance(request.do, states.Prepare)
            return self._state()

    def finish(self) -> None:
        """End the work: drop an unfinished object and write the decoders.

        Raises:
            MaskrtError: they cannot be written.
        """
        with self._lock:
            try:
                with self._learning():
                    self._drop()
            finally:
                self._save_decoders()
            self._turn += 1

    def _click(self, do: states.Click) -> None:
        self._check_count()
        self._timed(lambda: self._session.click(do.x, do.y, do.positive))
        self._prompts.append(None)

    def _box(self, do: states.Box) -> None:
        self._check_count()
        self._timed(lambda: self._session.box(do.x0, do.y0, do.x1, do.y1))
        self._prompts.append((do.x0, do.y0, do.x1, do.y1))

    def _check_count(self) -> None:
        if len(self._prompts) >= MOST_PROMPTS:  # the decoder's memory and time grow with each
            raise InputError(f"the object has {MOST_PROMPTS} clicks and boxes already: accept it, or reset it")

    def _undo(self) -> None:
        if self._prompts:
            self._timed(self._session.undo)
            self._prompts.pop()

    def _timed(self, prompt: Callable[[], object]) -> None:
        """Prompt the session, and measure the time without embedding the picture."""
        self._prepare()
        started = time.perf_counter()
        prompt()
        self._last_ms = (time.perf_counter() - started) * 1000

    def _accept(self) -> None:
        opened, mask = self._readable(), self._session.mask
        if mask is None:
            raise InputError("there is nothing to accept: click on an object first")
        if not mask.any():
            raise InputError("the mask is empty: click on the object, or reset")
        # Kept before the decoder learns: a failing network must not lose what a person has drawn.
        self._store.add(opened, self._session.decoder, mask, self._clicks(), self._box_xyxy())
        self._prompts.clear()
        try:
            self._session.accept()
        except MaskrtError as error:
            self._session.reset()
            raise MaskrtError(f"the object is kept, but nothing was learnt from it: {error}") from error

    def _drop(self) -> None:
        """Drop the current object; after many clicks it counts as a failure, and its clicks still teach."""
        if not self._prompts:
            return
        failed = len(self._session.clicks) >= FAILED_CLICKS
        if failed:
            self._store.give_up()
        self._prompts.clear()
        try:
            if failed:
                self._session.give_up()
        except MaskrtError as error:
            raise MaskrtError(f"the object is given up, but nothing was learnt from its clicks: {error}") from error
        finally:
            self._session.reset()

    def _show(self, do: states.Show) -> None:
        if not 0 <= do.index < len(self._pictures):
            raise InputError(f"there is no picture {do.index + 1}: choose 1 to {len(self._pictures)}")
        self._drop()
        self._put(do.index)

    def _put(self, index: int) -> None:
        """Make a picture the current one; if it cannot be annotated, the page shows why, and nothing is raised."""
        self._index, self._problem, self._prepared = index, "", False
        self._opened: Opened | None = None
        try:
            opened = open_picture(self._pictures[index], self._max_pixels)
            self._store.check(opened)
            self._opened = opened
        except InputError as error:
            self._problem = str(error)

    def _prepare(self) -> None:
        """Embed the picture unless that is done."""
        opened = self._readable()
        if not self._prepared:
            self._session.set_image(opened.rgb)
            self._prepared = True

    def _choose(self, do: states.Choose) -> None:
        if do.name not in self._store.classes:
            raise InputError(f"there is no class {do.name}: choose from {', '.join(self._store.classes)}")
        if do.name != self._session.decoder:
            self._between_objects()
            self._session.use(do.name)

    def _delete(self, do: states.Delete) -> None:
        if do.id not in [found.id for found in self._store.objects_of(self._pictures[self._index].name)]:
            raise InputError("this object is not on the picture that is shown: look again")
        self._store.delete(do.id)

    def _save(self) -> None:
        self._between_objects()
        self._save_decoders()

    def _save_decoders(self) -> None:
        chosen = self._session.decoder
        try:
            for name in sorted(self._unsaved):
                self._session.use(name)
                self._session.save_decoder(self._store.decoder_file(name))
                self._unsaved.discard(name)
        finally:
            self._session.use(chosen)

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """Note whether the decoder takes training steps inside the `with` block."""
        decoder, steps = self._session.decoder, self._session.steps
        try:
            yield
        finally:
            if self._session.decoder == decoder and self._session.steps != steps:
                self._unsaved.add(decoder)

    def _between_objects(self) -> None:
        if self._prompts:
            raise InputError("finish the object first: Enter accepts it, R drops it")

    def _readable(self) -> Opened:
        if self._opened is None:
            raise InputError(self._problem)
        return self._opened

    def _clicks(self) -> list[tuple[int, int, int]]:
        return [(click.x, click.y, int(click.positive)) for click in self._session.clicks]

    def _box_xyxy(self) -> BoxXyxy | None:
        return next((box for box in reversed(self._prompts) if box is not None), None)

    def _state(self) -> states.State:
        name, mask = self._pictures[self._index].name, self._session.mask
        return states.State(
            turn=self._turn,
            index=self._index,
            count=len(self._pictures),
            name=name,
            size_hw=None if self._opened is None else self._opened.size_hw,
            problem=self._problem or None,
            clicks=self._clicks(),
            box=self._box_xyxy(),
            mask=None if mask is None else encode_rle(mask),
            objects=_accepted(self._store, name),
            classes=list(self._store.classes),
            chosen=self._session.decoder,
            counters=self._counters(),
            failed_clicks=FAILED_CLICKS,
            unsaved=bool(self._unsaved),
        )

    def _counters(self) -> states.Counters:
        objects = self._store.annotations
        return states.Counters(
            accepted=len(objects),
            clicks_per_object=sum(len(found.clicks) for found in objects) / len(objects) if objects else None,
            failures=self._store.failures,
            annotated=sum(picture.name in self._store.annotated for picture in self._pictures),
            steps=self._session.steps,
            skipped_steps=self._session.skipped_steps,
            last_ms=self._last_ms,
        )


def _accepted(store: Store, name: str) -> list[states.Accepted]:
    """Return a picture's objects, numbered as in its label picture."""
    return [
        states.Accepted(found.id, number, store.class_of(found), len(found.clicks), found.area, found.segmentation)
        for number, found in enumerate(store.objects_of(name), 1)
    ]


_ACTIONS: dict[type[states.Action], Callable[[Desk, Any], None]] = {
    states.Click: Desk._click,
    states.Box: Desk._box,
    states.Undo: lambda desk, do: desk._undo(),
    states.Reset: lambda desk, do: desk._drop(),
    states.Accept: lambda desk, do: desk._accept(),
    states.Show: Desk._show,
    states.Prepare: lambda desk, do: desk._prepare(),
    states.Choose: Desk._choose,
    states.Delete: Desk._delete,
    states.Save: lambda desk, do: desk._save(),
}
