"""Types of the numbers and texts in a bundle, each with bounds: what is outside them is damage or a mistake."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

Side = Annotated[int, msgspec.Meta(ge=1, le=16384)]  # of a picture, in pixels
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Size = Annotated[int, msgspec.Meta(ge=0, le=8 << 30)]  # of a file, in bytes
Score = Annotated[float, msgspec.Meta(ge=0, le=1)]
Big = Annotated[float, msgspec.Meta(ge=0, le=1e12)]  # a difference, of outputs of any scale
Mean = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]  # of RGB / 255; 0.4 or so
Deviation = Annotated[float, msgspec.Meta(ge=1e-6, le=1000)]
Logit = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
ClassName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


def check_classes(classes: Sequence[str]) -> None:
    """Check the names of a segmenter's classes.

    Raises:
        ValueError: there are fewer than 2 or more than 256, or a name stands for two classes.
    """
    if not 2 <= len(classes) <= 256:
        raise ValueError(f"{len(classes)} classes: expected 2 to 256, the background among them")
    if len(set(classes)) < len(classes):
        raise ValueError(f"two classes have one name: {', '.join(classes)}")
