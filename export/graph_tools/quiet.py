"""Other packages' log lines, which say nothing a user could act on."""

import logging


class quiet:
    """Silences a logger below errors for the length of a block; None is the root logger."""

    def __init__(self, name: str | None) -> None:
        self._logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
