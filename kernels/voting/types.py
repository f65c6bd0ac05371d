"""The run lengths of masks that are voted on and painted."""

from typing import NamedTuple

from maskrt.kernels.arrays import Indices


class Runs(NamedTuple):
    """Uncompressed COCO run lengths of N masks: mask n has counts[offsets[n] : offsets[n + 1]].

    counts: int64 [R], column-major; background and foreground alternate, and each mask starts with background. offsets:
    int64 [N + 1].
    """

    counts: Indices
    offsets: Indices
