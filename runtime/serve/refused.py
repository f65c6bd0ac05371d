"""The errors with which a request is refused."""

from maskrt.runtime.errors import InputError


class Refused(InputError):
    """A refused request, which is answered with an HTTP status and one of X-AnyLabeling's codes."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def invalid_request(message: str) -> Refused:
    """Return the refusal of a request that cannot be understood, or asks for something that does not exist."""
    return Refused(400, "INVALID_REQUEST", message)


def invalid_image(message: str) -> Refused:
    """Return the refusal of a request whose picture cannot be used."""
    return Refused(400, "INVALID_IMAGE", message)
