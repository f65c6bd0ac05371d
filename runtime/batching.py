"""Tools to work on several things at a time: each keeps its own error, and a batch is halved where memory is short."""

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
    """Return what `work` returns, or its error where that is a frame's own, so that the other frames go on."""
    try:
        return work()
    except (InputError, NetworkError) as error:
        return as_value(error)


def as_value(error: ErrorT) -> ErrorT:
    """Return the error without its tracebacks, so that it can be kept.

    A traceback holds what every function on the way worked on: pictures, and memory of a GPU. It holds them as long as
    the error is kept or, where one of the functions keeps the error, until Python looks for cycles.
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
    """Run `work` once on the views of all inputs, and return each one's result.

    An input for which `view_of` fails is left out, and its error is returned in its place.
    """
    views = [attempt(partial(view_of, *each)) for each in inputs]
    found = iter(work([view for view in views if not isinstance(view, MaskrtError)]))
    return [cast(InputError | NetworkError, view) if isinstance(view, MaskrtError) else next(found) for view in views]


def retry_individually(
    work: Callable[[Sequence[ViewT]], Sequence[T]], views: Sequence[ViewT]
) -> list[T | InputError | NetworkError]:
    """Run `work` on all views together; where one of them stops it, run it on each by itself.

    A single view may hold what makes NaN, or have proportions that a network's fixed sides do not fit.
    """
    try:
        return [*work(views)]
    except (InputError, NotFinite) as error:
        if len(views) == 1:
            return [as_value(error)]
    return [found for view in views for found in retry_individually(work, [view])]


def unwrap(found: T | MaskrtError) -> T:
    """Return what was found; raise it where it is an error."""
    if isinstance(found, MaskrtError):
        try:
            raise found
        finally:
            del found  # or the error's traceback would hold this function, and this function the error
    return found


def in_halves(work: Callable[[ItemsT], T], items: ItemsT) -> list[T]:
    """Return [work(items)], or the results for both halves where that does not fit into memory.

    It is for items that do not depend on each other.

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
    """Return the indices of equal keys, in the order in which the keys first come."""
    found: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return list(found.values())
