"""Numeric functions that several packages share."""

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the softmax over the first axis, in float32."""
    exponentials = np.exp(logits - logits.max(axis=0))
    return np.ascontiguousarray(exponentials / exponentials.sum(axis=0), dtype=np.float32)
