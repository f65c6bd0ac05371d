"""Ctrl-C with a message."""


class Interrupted(Exception):
    """The user stopped the command; the message says what is kept and how to go on. Exit code 130."""


# What Ctrl-C raises: inside a numba kernel it comes out as a SystemError that was caused by it.
INTERRUPTS = (KeyboardInterrupt, SystemError)


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an exception is Ctrl-C, or was caused by it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
