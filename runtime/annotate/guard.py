"""Guards the application: nobody gets in without the secret, and no response lets a page reach out."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from maskrt.runtime.web.refused import Refused
from maskrt.runtime.web.sender import check_sender

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}


def new_token() -> str:
    """Make a secret for the path."""
    return secrets.token_urlsafe(24)


class Secret:
    """A layer that answers 404 to every path that does not begin with the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compare in constant time, so that nobody can guess the token letter by letter."""
        from starlette.responses import PlainTextResponse

        # Messages that are no requests, such as the start of the server, have no path.
        given = _first_part(scope["path"]) if scope["type"] == "http" else self._token
        if secrets.compare_digest(given, self._token):
            await self._app(scope, receive, send)
        else:
            await PlainTextResponse("Not Found", 404)(scope, receive, send)


class Sender:
    """A layer that refuses what a web page of another site sends, and bodies that are not JSON; see check_sender."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request's headers before anything of its body is read."""
        from starlette.datastructures import Headers as RequestHeaders
        from starlette.responses import PlainTextResponse

        try:
            if scope["type"] == "http":
                check_sender(scope["method"], RequestHeaders(scope=scope))
        except Refused as error:
            await PlainTextResponse(f"{error}\n", error.status)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Headers:
    """A layer that adds HEADERS to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to the response."""

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS.items()]
            await send(message)

        await self._app(scope, receive, add)


def _first_part(path: str) -> bytes:
    """Return what stands between the first two slashes; empty for a path such as `*`, which has none."""
    return path.partition("/")[2].partition("/")[0].encode("utf-8", "replace") if path.startswith("/") else b""
