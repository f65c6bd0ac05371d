"""The check at every kernel's public edge. For a wrong array Numba would compile anew, or read out of bounds."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike


def check_array(name: str, array: Any, dtype: DTypeLike, shape: tuple[int | None, ...]) -> None:
    """Require a C-contiguous array of this dtype and shape, from NumPy or, on a device, from Numba.

    Args:
        name: the argument's, for the error.
        shape: None stands for any length.

    Raises:
        ValueError: it names the argument, what was expected and what came.
    """
    fits = array.ndim == len(shape) and all(
        want is None or want == size for want, size in zip(shape, array.shape, strict=True)
    )
    in_order = array.flags.c_contiguous if isinstance(array, np.ndarray) else array.is_c_contiguous()
    if array.dtype != np.dtype(dtype) or not fits or not in_order:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        order = "" if in_order else ", not C-contiguous"
        raise ValueError(
            f"{name}: expected C-contiguous {np.dtype(dtype)} [{wanted}], "
            f"got {array.dtype} {list(array.shape)}{order}: convert it with np.ascontiguousarray"
        )
