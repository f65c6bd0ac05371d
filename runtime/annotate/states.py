"""The messages between browser and desk, as JSON: actions one way, the state the other."""

from typing import Annotated

import msgspec

from maskrt.runtime.rle import Rle

Number = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]  # of a message; longer ones are refused on reading


class Click(msgspec.Struct, tag_field="kind", tag="click", forbid_unknown_fields=True):
    """A click at a pixel, on the object or beside it."""

    x: Number
    y: Number
    positive: bool = True


class Box(msgspec.Struct, tag_field="kind", tag="box", forbid_unknown_fields=True):
    """A box around the object; both corners are pixels inside it."""

    x0: Number
    y0: Number
    x1: Number
    y1: Number


class Undo(msgspec.Struct, tag_field="kind", tag="undo", forbid_unknown_fields=True):
    """Take the last click or box back."""


class Reset(msgspec.Struct, tag_field="kind", tag="reset", forbid_unknown_fields=True):
    """Drop the object; after many clicks it counts as given up, and its clicks teach."""


class Accept(msgspec.Struct, tag_field="kind", tag="accept", forbid_unknown_fields=True):
    """Keep the object, learn from it, and begin the next."""


class Show(msgspec.Struct, tag_field="kind", tag="show", forbid_unknown_fields=True):
    """Go to a picture, counted from 0."""

    index: Number


class Prepare(msgspec.Struct, tag_field="kind", tag="prepare", forbid_unknown_fields=True):
    """Embed the picture that is shown, so that the first click does not wait for it."""


class Choose(msgspec.Struct, tag_field="kind", tag="choose", forbid_unknown_fields=True):
    """Go on with another class and its decoder."""

    name: str


class Delete(msgspec.Struct, tag_field="kind", tag="delete", forbid_unknown_fields=True):
    """Remove an accepted object of the picture."""

    id: Number


class Save(msgspec.Struct, tag_field="kind", tag="save", forbid_unknown_fields=True):
    """Write the decoders that have learnt."""


Action = Click | Box | Undo | Reset | Accept | Show | Prepare | Choose | Delete | Save


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """An action, and the turn that the browser saw when the person took it."""

    turn: Number
    do: Action


class Accepted(msgspec.Struct):
    """An accepted object of the picture; number: its value in the label picture."""

    id: int
    number: int
    name: str
    clicks: int
    area: int
    mask: Rle


class Counters(msgspec.Struct):
    """Counters of the whole folder; clicks_per_object: None before the first object; last_ms: of the last prompt."""

    accepted: int
    clicks_per_object: float | None
    failures: int
    annotated: int
    steps: int
    skipped_steps: int
    last_ms: float | None


class State(msgspec.Struct):
    """All that the page shows; problem: why the picture cannot be annotated; unsaved: decoders have learnt since."""

    turn: int
    index: int
    count: int
    name: str
    size_hw: tuple[int, int] | None
    problem: str | None
    clicks: list[tuple[int, int, int]]
    box: tuple[int, int, int, int] | None
    mask: Rle | None
    objects: list[Accepted]
    classes: list[str]
    chosen: str
    counters: Counters
    failed_clicks: int
    unsaved: bool
