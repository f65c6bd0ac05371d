"""What working on several things at a time needs: errors that are one's own, and halves where memory is short."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar

from maskrt.runtime.errors import InputError, MaskrtError, NetworkError, OutOfMemory

T = TypeVar("T")


class _Sliceable(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


ItemsT = TypeVar("ItemsT", bound=_Sliceable)


def attempt(work: Callable[[], T]) -> T | InputError | NetworkError:
    """What `work` returns, or its error where that is a frame's own: the other frames go on."""
    try:
        return work()
    except (InputError, NetworkError) as error:
        return error


def raised(found: T | MaskrtError) -> T:
    """What was found; an error is raised."""
    if isinstance(found, MaskrtError):
        raise found
    return found


def in_halves(work: Callable[[ItemsT], T], items: ItemsT) -> list[T]:
    """[work(items)], or of both halves where that does not fit into memory: for items that do not know of each other.

    Raises:
        OutOfMemory: half of them did not fit either, or there is only one.
    """
    try:
        return [work(items)]
    except OutOfMemory:
        if len(items) < 2:
            raise
    half = len(items) // 2
    return [work(items[:half]), work(items[half:])]


def groups(keys: Sequence[Hashable]) -> list[list[int]]:
    """The indices of equal keys, in the order in which the keys first come."""
    found: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return list(found.values())
