"""What a request is refused with."""

from maskrt.runtime.errors import InputError


class Refused(InputError):
    """A request that is answered with an HTTP status and a code of X-AnyLabeling's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def invalid_request(message: str) -> Refused:
    """The request cannot be understood, or asks for what there is not."""
    return Refused(400, "INVALID_REQUEST", message)


def invalid_image(message: str) -> Refused:
    """The request is understood, its picture cannot be used."""
    return Refused(400, "INVALID_IMAGE", message)
