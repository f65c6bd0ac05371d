"""The desk behind HTTP: answers the browser's requests and turns errors into statuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

from maskrt.runtime.annotate.desk import Desk, StaleTurn
from maskrt.runtime.annotate.guard import Headers, Secret, Sender
from maskrt.runtime.annotate.server import HOST
from maskrt.runtime.annotate.states import Request as Action
from maskrt.runtime.annotate.states import State
from maskrt.runtime.errors import InputError, MaskrtError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    Endpoint = Callable[[Request], Awaitable[Response]]

MAX_BODY = 4096  # bytes; the longest action is a class of 60 letters
MOST_DIGITS = 9  # of a picture's number; int() refuses more than 4,300
PAGE = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "view.js": ("view.js", "text/javascript"),
}


class Answer(msgspec.Struct):
    """The answer to every request about the desk: its state now, and the error if there was one."""

    state: State
    error: str | None = None


def make_app(desk: Desk, token: str) -> Starlette:
    """Make the web application.

    Args:
        token: the first part of every path; any other path gets 404.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Mount, Route

    state, act, picture = _endpoints(desk)
    routes = [
        Route("/state", state),
        Route("/act", act, methods=["POST"]),
        Route("/picture/{index}", picture),
        Route("/{name}", _page),
        Route("/", _page),
    ]
    middleware = [
        Middleware(Headers),
        # A foreign page whose name resolves to this machine (DNS rebinding) still sends that name.
        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False),
        Middleware(Secret, token=token),
        Middleware(Sender),
    ]
    return Starlette(routes=[Mount(f"/{token}", routes=routes)], middleware=middleware)


def _endpoints(desk: Desk) -> tuple[Endpoint, Endpoint, Endpoint]:
    """Make the endpoints for state, action and picture; the desk works in threads, so the server stays free."""
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect
    from starlette.responses import PlainTextResponse, Response

    async def state(request: Request) -> Response:
        return await run_in_threadpool(_answer, desk, lambda: None)

    async def act(request: Request) -> Response:
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return PlainTextResponse(f"at most {MAX_BODY} bytes\n", 413)
        return await run_in_threadpool(_answer, desk, lambda: desk.act(_decoded(body)))

    async def picture(request: Request) -> Response:
        index = request.path_params["index"]
        if not (index.isascii() and index.isdecimal() and len(index) <= MOST_DIGITS):
            return PlainTextResponse("there is no such picture: pictures have numbers from 0\n", 404)
        try:
            png = await run_in_threadpool(desk.picture, int(index))
        except Exception as error:
            return PlainTextResponse(f"{_explained(error)}\n", 409 if isinstance(error, InputError) else 500)
        return Response(png, media_type="image/png")

    return state, act, picture


def _answer(desk: Desk, work: Callable[[], object]) -> Response:
    """Do the work, and answer with the state; an error becomes a status."""
    from starlette.responses import Response

    status, error = 200, None
    try:
        work()
    except Exception as failure:
        error = _explained(failure)
        status = 409 if isinstance(failure, StaleTurn) else 400 if isinstance(failure, InputError) else 500
    return Response(msgspec.json.encode(Answer(desk.state(), error)), status, media_type="application/json")


def _explained(error: Exception) -> str:
    return str(error) if isinstance(error, MaskrtError) else f"unexpected {type(error).__name__}: {error}"


async def _page(request: Request) -> Response:
    from starlette.responses import PlainTextResponse, Response

    found = PAGE.get(request.path_params.get("name", ""))
    if found is None:
        return PlainTextResponse("Not Found", 404)
    return Response(files(__package__).joinpath(found[0]).read_bytes(), media_type=found[1])


async def _body(request: Request) -> bytes | None:
    """Read a body of at most MAX_BODY bytes; return None for a longer one, whose rest is not read."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return body


def _decoded(body: bytes) -> Action:
    try:
        return msgspec.json.decode(body, type=Action)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the page does not make such a request ({error}): reload the page") from error
