"""The desk behind HTTP on this machine alone: a secret in the path, and nothing that another page could ask for."""

import secrets
import signal
import socket
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskrt.runtime.annotate.desk import Desk, StaleTurn
from maskrt.runtime.annotate.states import Request as Action
from maskrt.runtime.annotate.states import State
from maskrt.runtime.errors import InputError, MaskrtError

HOST = "127.0.0.1"
MAX_BODY = 4096  # bytes; the longest action is a class of 60 letters
PAGE = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "view.js": ("view.js", "text/javascript"),
}
HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}


class Answer(msgspec.Struct):
    """What every request about the desk gets: its state now, and what went wrong."""

    state: State
    error: str | None = None


def make_app(desk: Desk, token: str) -> Starlette:
    """The web application.

    Args:
        token: the first part of every path; without it everything is 404.
    """

    def answer(work: Callable[[], object]) -> Response:
        """Do the work; its error becomes a status, and the state goes along."""
        status, error = 200, None
        try:
            work()
        except MaskrtError as failure:
            error = str(failure)
            status = 409 if isinstance(failure, StaleTurn) else 400 if isinstance(failure, InputError) else 500
        return _json(Answer(desk.state(), error), status)

    async def state(request: Request) -> Response:
        return await run_in_threadpool(answer, lambda: None)

    async def act(request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return PlainTextResponse(f"at most {MAX_BODY} bytes\n", 413)
        return await run_in_threadpool(answer, lambda: desk.act(_decoded(body)))

    async def picture(request: Request) -> Response:
        try:
            png = await run_in_threadpool(desk.picture, request.path_params["index"])
        except InputError as error:
            return PlainTextResponse(f"{error}\n", 409)
        return Response(png, media_type="image/png")

    async def page(request: Request) -> Response:
        found = PAGE.get(request.path_params.get("name", ""))
        if found is None:
            return PlainTextResponse("Not Found", 404)
        return Response(files(__package__).joinpath(found[0]).read_bytes(), media_type=found[1])

    routes = [
        Route("/state", state),
        Route("/act", act, methods=["POST"]),
        Route("/picture/{index:int}", picture),
        Route("/{name}", page),
        Route("/", page),
    ]
    middleware = [
        Middleware(_Headers),
        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False),
        Middleware(_Secret, token=token),
    ]
    return Starlette(routes=[Mount(f"/{token}", routes=routes)], middleware=middleware)


def listen(port: int) -> socket.socket:
    """A socket of this machine alone.

    Args:
        port: 0 for any that is free.

    Raises:
        InputError: it is taken, or not ours to take.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--port {port}: {reason}: choose another, or 0 for any that is free") from error


def make_server(app: Starlette) -> uvicorn.Server:
    """The server of an application, not yet running."""
    # No access log: every line of it would hold the token.
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=5
    )
    return uvicorn.Server(config)


def serve(app: Starlette, sock: socket.socket) -> None:
    """Answer on a socket until Ctrl-C or SIGTERM; for the main thread."""
    # uvicorn ends, then raises the signal again, by which the process would die before the decoders are saved.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        make_server(app).run(sockets=[sock])
    except KeyboardInterrupt:
        pass  # the way to end it, and no interruption: what was accepted is on disk
    finally:
        signal.signal(signal.SIGTERM, previous)


def new_token() -> str:
    """A secret for the path."""
    return secrets.token_urlsafe(24)


class _Secret:
    """404 for every path that does not begin with the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compare in constant time, so that the token cannot be guessed letter by letter."""
        # What is no request, such as the start of the server, has no path.
        given = scope["path"].split("/", 2)[1].encode("utf-8", "replace") if scope["type"] == "http" else self._token
        if secrets.compare_digest(given, self._token):
            await self._app(scope, receive, send)
        else:
            await PlainTextResponse("Not Found", 404)(scope, receive, send)


class _Headers:
    """HEADERS on every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and add to what comes back."""

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS.items()]
            await send(message)

        await self._app(scope, receive, add)


async def _body(request: Request) -> bytes | None:
    """At most MAX_BODY bytes; None for more, of which the rest is not read."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return body


def _decoded(body: bytes) -> Action:
    try:
        return msgspec.json.decode(body, type=Action)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"this request is none that the page makes ({error}): reload the page") from error


def _json(value: Any, status: int) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
