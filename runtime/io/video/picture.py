"""Turns a decoded frame into the picture that a player shows: upright, RGB of 8 bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.io.video.tracks import is_grey_measurement

# Transfer characteristics of ITU-T H.273 that are none of a screen's: shown as they are, such pictures are wrong.
_TRANSFERS = {8: "linear light", 9: "a logarithmic curve", 10: "a logarithmic curve", 16: "HDR (PQ)", 18: "HDR (HLG)"}
# Matrices of ITU-T H.273 that FFmpeg converts. 2 is "not stated": FFmpeg takes BT.601, as it does for 0 in YUV.
_MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)


def refusal(frame: Any) -> str | None:
    """Say why a frame cannot be taken as the colour picture that it shows, if so."""
    name = frame.format.name
    if is_grey_measurement(name):
        return f"holds {name}, a measurement such as depth or infrared and not a colour picture"
    if frame.color_trc in _TRANSFERS:
        return f"is {_TRANSFERS[frame.color_trc]}: convert it to standard range (SDR, BT.709) first"
    if frame.colorspace not in _MATRICES and not name.startswith("gray"):
        return f"has colour matrix {frame.colorspace} of ITU-T H.273, which maskrt cannot read: convert it to BT.709"
    try:
        matrix = _matrix(frame)
    except ValueError:  # PyAV 18 cannot list side data when one kind is newer than it, such as the EXIF of a JPEG
        return "is turned, and PyAV cannot read how: convert it" if frame.rotation else None
    if matrix is not None and not _is_quarter_turn(matrix):
        return f"asks to be shown turned by {_degrees(matrix)} or distorted: turn it to a multiple of 90 degrees first"
    return None


def rgb_of(frame: Any) -> NDArray[np.uint8]:
    """Return a frame as uint8 RGB [H, W, 3], turned and mirrored as its display matrix says.

    Colours are converted by the matrix and range that the frame states; without a statement, by BT.601 and limited
    range, as FFmpeg assumes. Alpha is dropped. Depths over 8 bits are rounded to 8. Non-square pixels stay as coded.
    """
    rgb: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    try:
        matrix = _matrix(frame)
    except ValueError:  # not turned: see refusal
        matrix = None
    if matrix is None:
        return rgb
    # A pixel at (p, q) is shown at (a p + c q, b p + d q), plus a shift that brings it back into view.
    (a, b), (c, d) = matrix[0, :2], matrix[1, :2]
    if a == 0:
        rgb, a, d = rgb.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(rgb[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1])


def _matrix(frame: Any) -> NDArray[np.int32] | None:
    """Return the display matrix as int32 [3, 3], rows (a, b, u), (c, d, v), (x, y, w), if there is one."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(data), np.int32)[:9].reshape(3, 3)
    return None


def _is_quarter_turn(matrix: NDArray[np.int32]) -> bool:
    corner = matrix[:2, :2] != 0
    straight = bool((corner == np.eye(2, dtype=bool)).all() or (corner == ~np.eye(2, dtype=bool)).all())
    return straight and not matrix[:2, 2].any()


def _degrees(matrix: NDArray[np.int32]) -> str:
    if not matrix[0, :2].any():
        return "no certain angle"
    return f"{np.degrees(np.arctan2(float(matrix[0, 1]), float(matrix[0, 0]))):.0f} degrees"
