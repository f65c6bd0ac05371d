"""Ctrl-C, turned into an error with a message."""


class Interrupted(Exception):
    """The user stopped the command; the message says what is kept and how to go on. Exit code 130."""


# The errors that Ctrl-C raises; inside a numba kernel it becomes the cause of a SystemError.
INTERRUPTS = (KeyboardInterrupt, SystemError)


def is_interrupt(error: BaseException | None) -> bool:
    """Return whether an exception is Ctrl-C, or was caused by it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
