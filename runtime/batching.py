"""What working on several things at a time needs: errors that are one's own, and halves where memory is short."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, TypeVarTuple, cast

from maskrt.runtime.errors import InputError, MaskrtError, NetworkError, NotFinite, OutOfMemory

T = TypeVar("T")
ViewT = TypeVar("ViewT")
InputTs = TypeVarTuple("InputTs")
ErrorT = TypeVar("ErrorT", bound=MaskrtError)


class _Sliceable(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


ItemsT = TypeVar("ItemsT", bound=_Sliceable)


def attempt(work: Callable[[], T]) -> T | InputError | NetworkError:
    """What `work` returns, or its error where that is a frame's own: the other frames go on."""
    try:
        return work()
    except (InputError, NetworkError) as error:
        return as_value(error)


def as_value(error: ErrorT) -> ErrorT:
    """The error, to be kept: without tracebacks, in which every function on the way would hold what it worked on.

    That is pictures, and memory of a GPU, for as long as the error is kept, or, where one of the functions keeps it,
    until Python looks for cycles.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def run_isolated(
    inputs: Sequence[tuple[*InputTs]],
    view_of: Callable[[*InputTs], ViewT],
    work: Callable[[Sequence[ViewT]], Sequence[T]],
) -> list[T | InputError | NetworkError]:
    """Return for each input what `work` makes of its view, all views together; or the error of view_of, left out."""
    views = [attempt(partial(view_of, *each)) for each in inputs]
    found = iter(work([view for view in views if not isinstance(view, MaskrtError)]))
    return [cast(InputError | NetworkError, view) if isinstance(view, MaskrtError) else next(found) for view in views]


def retry_individually(
    work: Callable[[Sequence[ViewT]], Sequence[T]], views: Sequence[ViewT]
) -> list[T | InputError | NetworkError]:
    """What `work` makes of all views; where one stops those that were taken together, of each by itself.

    One alone may hold what makes NaN, or have proportions that a network's fixed sides do not fit.
    """
    try:
        return [*work(views)]
    except (InputError, NotFinite) as error:
        if len(views) == 1:
            return [as_value(error)]
    return [found for view in views for found in retry_individually(work, [view])]


def unwrap(found: T | MaskrtError) -> T:
    """What was found; an error is raised."""
    if isinstance(found, MaskrtError):
        try:
            raise found
        finally:
            del found  # or the error's traceback would hold this function, and this function the error
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
