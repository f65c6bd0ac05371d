"""The source document's voting, over dense masks: the plainest NumPy that does it."""

import numpy as np
from numpy.typing import NDArray


def dense_vote(
    probabilities: NDArray[np.float32], masks: NDArray[np.bool_], uncovered: str = "background"
) -> NDArray[np.uint8]:
    """Vote softly between two classes: a segment joins class 1 when its pixels give class 1 more than class 0.

    Args:
        probabilities: float32 [2, H, W].
        masks: bool [N, H, W].
        uncovered: pixels under no mask get class 0 ("background") or their own winner ("segmenter").

    Returns:
        uint8 [H, W]: 1 where any covering segment has class 1, 0 under other segments; ties go to class 0.

    Raises:
        ValueError: there are not two classes.

    Source: algorithm 1 of the SOSS document.
    """
    if probabilities.shape[0] != 2:
        raise ValueError(f"expected two classes, got {probabilities.shape[0]}")
    label = np.zeros(probabilities.shape[1:], np.uint8)
    if uncovered == "segmenter":
        label[(probabilities[1] > probabilities[0]) & ~masks.any(axis=0)] = 1
    for mask in masks:
        votes = probabilities[:, mask].sum(axis=1, dtype=np.float64)
        if votes[1] > votes[0]:
            label[mask] = 1
    return label
