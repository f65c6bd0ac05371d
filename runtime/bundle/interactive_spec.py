"""How a session learns while it is used; the defaults are the source document's complete method."""

from typing import Annotated, Literal

import msgspec


class AdaptSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the mask decoder learns from, and how fast.

    click_adaptation: a step after every click; R: undone after the object, C: kept. result_mask: a step on the
    accepted mask; E: its outline eroded away on both sides, `erosions` times with a cross of 3 x 3 pixels at the
    encoder's size; U: as it is. click_mask: clicks are part of that step, or all of it. learning_rate: Adam's;
    mask_learning_rate: in place of it for steps on an accepted mask, which say something of every pixel.

    Source: Schön et al. 2024, sections 3.3 and 4.1.
    """

    click_adaptation: Literal["off", "R", "C"] = "R"
    result_mask: Literal["off", "E", "U"] = "E"
    click_mask: bool = True
    erosions: Annotated[int, msgspec.Meta(ge=0, le=256)] = 5
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1e-6
    mask_learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
