"""What a person points at."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Click:
    """A pixel of the image, and whether it belongs to the object. x, y: column and row, counted from 0."""

    x: int
    y: int
    positive: bool = True
