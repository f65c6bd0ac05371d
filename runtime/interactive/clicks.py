"""A click: a point that a person gives."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Click:
    """A pixel of the image, and whether it belongs to the object; x, y: its column and row, counted from 0."""

    x: int
    y: int
    positive: bool = True
