"""Opens the socket and runs the server until Ctrl-C."""

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskrt.runtime.bundle.bundle import MANIFEST
from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.files import sha256_of
from maskrt.runtime.serve.access import is_loopback
from maskrt.runtime.serve.app import Service, make_app
from maskrt.runtime.serve.load import FailureLines
from maskrt.runtime.serve.pictures import Origin, Pictures
from maskrt.runtime.serve.predictor import Predictor, Session
from maskrt.runtime.web.server import make_server, stopped_by_signals

API_KEY = "LABEL_STUDIO_API_KEY"


@dataclass(frozen=True)
class Limits:
    """The limits of one request: pixels of its picture, and bytes."""

    max_pixels: int
    max_bytes: int


def pictures_of(images: Path | None, label_studio: str | None, limits: Limits) -> Pictures:
    """Make the reader of the tasks' pictures; Label Studio's token comes from the environment.

    Raises:
        InputError: the folder does not exist, or the URL cannot be used.
    """
    if images is not None and not images.is_dir():
        raise InputError(f"--images {images}: no such folder")
    try:
        origin = None if label_studio is None else Origin.of(label_studio)
    except InputError as error:
        raise InputError(f"--label-studio: {error}") from error
    return Pictures(images, origin, os.environ.get(API_KEY, ""), limits.max_bytes)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 is any free port.

    Raises:
        InputError: this machine has no such address.
        MaskrtError: the port is taken, or may not be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}: no such address: use 127.0.0.1 or 0.0.0.0") from error
    try:
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise MaskrtError(f"cannot listen at {host}:{port} ({reason}): choose another --port") from error


def serve(
    session: Session,
    bundle: Path,
    listening: socket.socket,
    token: str | None,
    pictures: Pictures,
    limits: Limits,
    tell: Callable[[str], None],
) -> None:
    """Answer requests until Ctrl-C; `tell` gets the address, the token and a line for every failed request."""
    name = bundle.resolve().name
    version = f"{name}-{sha256_of(bundle / MANIFEST)[:8]}"
    predictor = Predictor(session, limits.max_pixels)
    service = Service(predictor, pictures, name, version, token, limits.max_bytes, FailureLines(tell))
    server = make_server(make_app(service))
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    with stopped_by_signals(server) as came:
        tell(f"serving {name} at http://{shown}:{port}")
        tell("token: none" if token is None else f"token: {token}")
        if not is_loopback(host):
            tell("other machines can reach it, unencrypted: use a network that you trust")
        server.run(sockets=[listening])
    if came:
        signal.raise_signal(came[0])  # so that the process ends as after this signal anywhere else
