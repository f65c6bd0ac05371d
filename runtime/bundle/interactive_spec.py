"""Settings of how a session learns while it is used; the defaults are the source document's complete method."""

from typing import Annotated, Literal

import msgspec


class AdaptationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of what the mask decoder learns from, and how fast.

    erosions: with a cross of 3 x 3 pixels, at the encoder's size. mask_learning_rate: an accepted mask gives a target
    for every pixel, so it may have a rate of its own.

    Source: Schön et al. 2024, sections 3.3 and 4.1.
    """

    click_adaptation: Annotated[
        Literal["off", "R", "C"],
        msgspec.Meta(description="a step after every click: R, undone after the object; C, kept; or off"),
    ] = "R"
    result_mask: Annotated[
        Literal["off", "E", "U"],
        msgspec.Meta(description="a step on the accepted mask: E, its outline eroded away; U, as it is; or off"),
    ] = "E"
    click_mask: Annotated[
        bool, msgspec.Meta(description="whether an object's clicks are part of its last step, or all of it")
    ] = True
    erosions: Annotated[
        int, msgspec.Meta(ge=0, le=256, description="how often result_mask=E erodes both sides of the outline")
    ] = 5
    learning_rate: Annotated[float, msgspec.Meta(ge=1e-12, le=1, description="Adam's learning rate")] = 1e-6
    mask_learning_rate: (
        Annotated[
            float, msgspec.Meta(ge=1e-12, le=1, description="that of steps on an accepted mask; null: learning_rate")
        ]
        | None
    ) = None
