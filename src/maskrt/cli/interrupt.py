"""Ctrl-C with a message."""


class Interrupted(Exception):
    """The user stopped the command; the message says what is kept and how to go on. Exit code 130."""
