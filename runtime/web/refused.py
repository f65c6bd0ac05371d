"""The error with which a request is refused."""

from maskrt.runtime.errors import InputError


class Refused(InputError):
    """A refused request, which is answered with an HTTP status and one of X-AnyLabeling's codes."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
