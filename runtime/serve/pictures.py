"""Reads a request's picture from the request itself, one folder, or the named Label Studio, and from nowhere else.

Otherwise, whoever sends a task could make this machine read any file, or ask any host that it reaches.
"""

import base64
import binascii
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO

from maskrt.runtime.errors import InputError
from maskrt.runtime.files import open_plain
from maskrt.runtime.serve.refused import invalid_image
from maskrt.runtime.web.refused import Refused

LOCAL_FILES, UPLOADS = "/data/local-files/", "/data/upload/"
TIMEOUT_S, FETCH_S = 30, 60  # for a part of a picture, and for all of it
PORTS = {"http": 80, "https": 443}


def decode_base64(text: str) -> bytes:
    """Decode a base64 data URL, or base64 alone.

    Raises:
        Refused: the text is neither.
    """
    head, comma, data = text.rpartition(",")
    if comma and not (head.startswith("data:") and head.endswith(";base64")):
        raise invalid_image("the picture is not a base64 data URL: expected data:image/png;base64,...")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_image("the picture is not base64: send it again") from error


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of a URL, with the path of the service."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Parse an http or https URL.

        Raises:
            InputError: the URL has another scheme, or is none.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            if parts.scheme not in PORTS or not parts.hostname:
                raise ValueError("not http or https")
            port = parts.port or PORTS[parts.scheme]
        except ValueError as error:
            raise InputError(f"{url[:200]!r} is not a usable URL ({error}): expected http://HOST:PORT") from error
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))

    def holds(self, other: "Origin") -> bool:
        """Return whether a URL is on the same host, and below the same path."""
        same = (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)
        return same and f"{other.path}/".startswith(f"{self.path}/") and ".." not in other.path.split("/")

    def url(self, path: str) -> str:
        """Return the URL of a path on this host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{path}"


@dataclass(frozen=True)
class Pictures:
    """A reader of the pictures of tasks.

    Args:
        images: the folder of Label Studio's local files and of its `upload` folder.
        label_studio: the only host from which pictures are fetched.
        api_key: the token for that host.
        max_bytes: largest size of a picture.
    """

    images: Path | None
    label_studio: Origin | None
    api_key: str
    max_bytes: int

    def read(self, url: str) -> bytes:
        """Read the bytes of a picture that a task names.

        Raises:
            Refused: the URL is not one of those above, there is no such picture, or it is too large.
        """
        if url.startswith("data:"):
            return decode_base64(url)
        if url.startswith(("upload/", "/upload/")):  # as older tasks have it
            url = f"/data/{url.lstrip('/')}"
        if url.startswith("/data/"):
            if self.images is not None and url.startswith((LOCAL_FILES, UPLOADS)):
                return self._from_folder(self.images, url)
            if self.label_studio is not None:
                return self._ask(self.label_studio, self.label_studio.path + url)
            raise invalid_image("the task's picture is a file of Label Studio's: start with --images or --label-studio")
        if url.startswith(("http://", "https://")):
            return self._from_host(url)
        raise invalid_image("the task's picture must be a data URL, a file of Label Studio's or an http(s) URL")

    def _from_folder(self, images: Path, url: str) -> bytes:
        parts = urllib.parse.urlsplit(url)
        if url.startswith(LOCAL_FILES):
            name = urllib.parse.parse_qs(parts.query).get("d", [""])[0]
        else:
            name = urllib.parse.unquote(parts.path.removeprefix("/data/"))
        missing = invalid_image("the task's picture is not in the folder of --images")
        try:
            path = (images / name).resolve()
            if not path.is_relative_to(images.resolve()):
                raise missing
            with open_plain(path) as file:
                return self._limited(file.read)
        except Refused:
            raise
        except (InputError, OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise missing from error

    def _from_host(self, url: str) -> bytes:
        refused = invalid_image("the task's picture is on a host that this server does not ask: see --label-studio")
        try:
            origin = Origin.of(url)
        except InputError as error:
            raise refused from error
        if self.label_studio is None or not self.label_studio.holds(origin):
            raise refused
        parts = urllib.parse.urlsplit(url)
        return self._ask(self.label_studio, parts.path + (f"?{parts.query}" if parts.query else ""))

    def _ask(self, origin: Origin, path: str) -> bytes:
        # The URL is put together from checked parts, so that no other way to read it leads elsewhere.
        url = origin.url(urllib.parse.quote(path, safe="/?&=%+,;:@~!$'()*"))
        if not origin.holds(Origin.of(url)):
            raise invalid_image("the task's picture is outside the URL of --label-studio")
        headers = {"Authorization": f"Token {self.api_key}"} if self.api_key else {}
        opener = urllib.request.build_opener(_SameOrigin(origin))
        try:
            with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as answer:
                return self._limited(answer.read1)
        except urllib.error.HTTPError as error:
            raise invalid_image(
                f"Label Studio answers {error.code} to the task's picture: see LABEL_STUDIO_API_KEY"
            ) from error
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, Refused):
                raise
            raise invalid_image(f"the task's picture cannot be fetched ({type(error).__name__})") from error

    def _limited(self, read: Callable[[int], bytes]) -> bytes:
        data, end = bytearray(), time.monotonic() + FETCH_S
        while part := read(1 << 16):
            data += part
            if len(data) > self.max_bytes:
                raise Refused(
                    413, "TOO_LARGE", f"the task's picture has over {self.max_bytes} bytes: see --max-megabytes"
                )
            if time.monotonic() > end:
                raise invalid_image(f"the task's picture takes over {FETCH_S} s: try again")
        return bytes(data)


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """A handler that follows redirects within one origin; another host could get the token, or must not be asked."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not self.origin.holds(Origin.of(newurl)):
            raise invalid_image("Label Studio redirects the task's picture to another host: not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
