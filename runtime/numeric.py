"""Numerics that several rooms share."""

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the first axis, float32."""
    exponentials = np.exp(logits - logits.max(axis=0))
    return np.ascontiguousarray(exponentials / exponentials.sum(axis=0), dtype=np.float32)
