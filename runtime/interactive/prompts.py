"""Turns clicks and a box into SAM's inputs, and into targets from which its decoder learns."""

import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.arrays import Floats, Indices
from maskrt.runtime.errors import InputError
from maskrt.runtime.interactive.clicks import Click

Box = tuple[int, int, int, int]

UNKNOWN = -1.0  # in a target: neither foreground (1) nor background (0)
_PADDING, _CORNERS = -1.0, (2.0, 3.0)  # labels


def checked_click(click: Click, size_hw: tuple[int, int]) -> Click:
    """Check a click and return it with plain integers as coordinates.

    Raises:
        InputError: it lies outside the image, or not on a pixel.
    """
    x, y = _whole(click.x), _whole(click.y)
    height, width = size_hw
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(f"click x={x} y={y} lies outside the {width} x {height} image: x is its column, y its row")
    return Click(x, y, bool(click.positive))


def checked_box(box: Sequence[int], size_hw: tuple[int, int]) -> Box:
    """Check a box x0, y0, x1, y1, whose corners belong to it, and return it as plain integers.

    Raises:
        InputError: it is empty, leaves the image, or its corners are no whole pixels.
    """
    if len(box) != 4:
        raise InputError(f"a box has four numbers, x0 y0 x1 y1, not {len(box)}")
    x0, y0, x1, y1 = (_whole(value) for value in box)
    height, width = size_hw
    if not (0 <= x0 <= x1 < width and 0 <= y0 <= y1 < height):
        raise InputError(
            f"box x0={x0} y0={y0} x1={x1} y1={y1} is empty or leaves the {width} x {height} image: "
            "give its upper left and its lower right pixel"
        )
    return x0, y0, x1, y1


def split_prompts(prompts: Sequence[Click | Box]) -> tuple[list[Click], Box | None]:
    """Return the clicks among prompts, and the last box; None where there is no box."""
    boxes = [prompt for prompt in prompts if not isinstance(prompt, Click)]
    return [prompt for prompt in prompts if isinstance(prompt, Click)], boxes[-1] if boxes else None


def prompt_feeds(
    clicks: Sequence[Click], box: Box | None, size_hw: tuple[int, int], input_hw: tuple[int, int]
) -> dict[str, Floats]:
    """Return `point_coords` float32 [1, P, 2] in pixels of the encoder's image, and `point_labels` [1, P].

    Args:
        clicks, box: at least one click or a box, in pixels of the image.
        size_hw, input_hw: size of the image, and of the image as the encoder sees it.

    Source: segment_anything's SamPredictor.predict and PromptEncoder._embed_points.
    """
    points = [(click.x, click.y) for click in clicks]
    labels = [1.0 if click.positive else 0.0 for click in clicks]
    if box is not None:
        points += [box[:2], box[2:]]
        labels += _CORNERS
    scale = np.array([input_hw[1] / size_hw[1], input_hw[0] / size_hw[0]])
    coords = np.array(points, np.float64).reshape(-1, 2) * scale
    if box is None:  # after the scaling: the padding lies at (0, 0) at any scale
        coords, labels = np.vstack([coords, np.zeros((1, 2))]), [*labels, _PADDING]
    return {"point_coords": coords[None].astype(np.float32), "point_labels": np.array([labels], np.float32)}


def clicked_pixels(
    clicks: Sequence[Click], size_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> tuple[Indices, Indices, Floats]:
    """Return where clicks lie on the grid of the encoder's pixels, and their values; on one pixel the last click wins.

    Returns:
        Rows int64 [n] and columns int64 [n] of distinct pixels, and values float32 [n], 1 or 0.
    """
    said: dict[tuple[int, int], float] = {}
    for click in clicks:
        place = _scaled(click.y, size_hw[0], grid_hw[0]), _scaled(click.x, size_hw[1], grid_hw[1])
        said[place] = float(click.positive)
    places = np.array(list(said), np.int64).reshape(-1, 2)
    return places[:, 0], places[:, 1], np.array(list(said.values()), np.float32)


def click_target(
    clicks: Sequence[Click], size_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> tuple[Indices, Indices, Floats]:
    """Return the distinct grid rows [R] and columns [C] with clicks, ascending, and their target, float32 [R, C]."""
    at_rows, at_columns, values = clicked_pixels(clicks, size_hw, grid_hw)
    rows, row_of = np.unique(at_rows, return_inverse=True)
    columns, column_of = np.unique(at_columns, return_inverse=True)
    target = np.full((len(rows), len(columns)), UNKNOWN, np.float32)
    target[row_of, column_of] = values
    return rows, columns, target


def pruned(mask: NDArray[np.bool_], erosions: int) -> Floats:
    """Make a target from a mask: 1 and 0 where eroded foreground and background remain, unknown between them.

    Args:
        mask: bool [h, w].
        erosions: how often both sides are eroded, with the cross of 3 x 3 pixels.

    Returns:
        float32 [h, w].

    Source: Schön et al. 2024, equations 3 to 5.
    """
    target = np.full(mask.shape, UNKNOWN, np.float32)
    left = np.empty(mask.shape, np.bool_)
    for value, side in ((1.0, mask), (0.0, ~mask)):
        sets.CPU.erode_cross(np.ascontiguousarray(side), erosions, left)
        target[left] = value
    return target


def _scaled(place: int, size: int, grid: int) -> int:
    """Return the grid's pixel in which a pixel's centre lies: floor((place + 1/2) * grid / size), exactly."""
    return (2 * place + 1) * grid // (2 * size)


def _whole(value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"a coordinate is a whole number of pixels, not {value!r}: round it down") from None
