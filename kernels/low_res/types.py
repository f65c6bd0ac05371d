"""The place of a low-res mask in an image, a window of it, and its box."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats

Box = NDArray[np.int32]


class Placement(NamedTuple):
    """The place of a low-res mask in an image: it is resized to square x square, cut to input_hw, resized to size_hw.

    Source: segment_anything's Sam.postprocess_masks.
    """

    square: int
    input_hw: tuple[int, int]
    size_hw: tuple[int, int]


class Window(NamedTuple):
    """A part of a low-res mask: float32 [h, w], C-contiguous, whose first value stands at (row, column)."""

    values: Floats
    row: int
    column: int
