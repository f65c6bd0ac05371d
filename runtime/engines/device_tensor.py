"""Tensors that stay on a device between the graphs of a pipeline."""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Place:
    """The place where an engine keeps tensors. Sessions of one place take each other's device tensors."""

    engine: str
    device: int

    def __str__(self) -> str:
        return f"{self.engine}'s device {self.device}"


class Memory(Protocol):
    """A block on a device. Its owner gets it back when the last device tensor on it is gone."""

    @property
    def address(self) -> int:
        """The address where it begins, in the device's memory."""

    def fetch(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """Copy a part of it to the host: uint8 [nbytes]."""


@dataclass(frozen=True, eq=False)
class DeviceTensor:
    """A tensor that a session has left on its device, whole or some rows of it.

    A slice of the leading axis indexes it like an array, and nothing is copied. References own the memory: it is given
    back at once when the last device tensor on it is dropped, also after its session was closed. There is no `close`
    to forget when an error occurs, or to call while a part is still in use.

    shape and dtype: like an array's; place: whose sessions take it; offset: of its first byte in the memory; part:
    whether it is some rows of a larger one.
    """

    place: Place
    memory: Memory
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int = 0
    part: bool = False

    @property
    def address(self) -> int:
        """The address of its first byte."""
        return self.memory.address + self.offset

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> "DeviceTensor":
        """Return some rows of the leading axis, on the same memory.

        Raises:
            ValueError: the rows do not lie side by side.
        """
        first, last, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("rows of a device tensor lie side by side: index what numpy() returns")
        count = max(0, last - first)
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        return replace(
            self,
            shape=(count, *self.shape[1:]),
            offset=self.offset + first * row_bytes,
            part=self.part or count < len(self),
        )

    def numpy(self) -> NDArray[Any]:
        """Return a copy on the host, in the tensor's shape and dtype."""
        return self.memory.fetch(self.offset, self.nbytes).view(self.dtype).reshape(self.shape)


Tensor = NDArray[Any] | DeviceTensor
