"""The interactive session as the desk uses it, and the decoders that it starts from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Mask
from maskrt.runtime.annotate.store import Store
from maskrt.runtime.errors import InputError
from maskrt.runtime.interactive.clicks import Click


class Annotator(Protocol):
    """An interactive session, for one thread at a time; maskrt.runtime.interactive.session has the real one."""

    @property
    def clicks(self) -> Sequence[Click]: ...

    @property
    def mask(self) -> Mask | None: ...

    @property
    def steps(self) -> int: ...

    @property
    def skipped_steps(self) -> int: ...

    @property
    def decoder(self) -> str: ...

    def set_image(self, rgb: NDArray[np.uint8]) -> None: ...

    def click(self, x: int, y: int, positive: bool = True) -> Mask: ...

    def box(self, x0: int, y0: int, x1: int, y1: int) -> Mask: ...

    def undo(self) -> Mask | None: ...

    def reset(self) -> None: ...

    def accept(self) -> Mask: ...

    def give_up(self) -> None: ...

    def use(self, name: str) -> None: ...

    def save_decoder(self, path: Path) -> None: ...

    def load_decoder(self, name: str, path: Path) -> None: ...


def load_decoders(session: Annotator, store: Store, given: Mapping[str, Path]) -> None:
    """Load the decoders that the user names, and for the other classes those that an earlier run left in the folder.

    Raises:
        InputError: a decoder is named for a class that does not exist; or see load_decoder.
    """
    for name in given:
        if name not in store.classes:
            raise InputError(f"--load {name}: there is no such class: choose from {', '.join(store.classes)}")
    for name in store.classes:
        path = given.get(name, store.decoder_file(name))
        if name in given or path.is_file():
            session.load_decoder(name, path)
