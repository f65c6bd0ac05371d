"""The shape of one scan of a JPEG, and the verdicts on it. Source: ITU-T T.81, annexes B, F and G."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WHOLE, BAD_CODE, TOO_SHORT, BAD_RESTART = range(4)


@dataclass(frozen=True)
class Scan:
    """One scan.

    layout: int64 [components, 6]: horizontal and vertical blocks of a component in an MCU, its DC and AC table (rows of
    `codes`), where its blocks begin in `nonzero`, and how many blocks of it lie side by side there. mcus_wh: MCUs in a
    row, and rows; of a scan of one component, its own blocks. restart: MCUs between two restart markers, 0 for
    none. spectral, approximation: Ss and Se, Ah and Al. progressive: coded as annex G says.
    codes: uint16 [tables, 65536]: for the next 16 bits the length of their code << 8 | its symbol; 0: no code.
    """

    layout: NDArray[np.int64]
    mcus_wh: tuple[int, int]
    restart: int
    spectral: tuple[int, int]
    approximation: tuple[int, int]
    progressive: bool
    codes: NDArray[np.uint16]
