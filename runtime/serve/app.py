"""The server's routes, and the one place where errors become statuses."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.serve import label_studio, x_anylabeling
from maskrt.runtime.serve.access import check_access
from maskrt.runtime.serve.load import Load
from maskrt.runtime.serve.pictures import Pictures
from maskrt.runtime.serve.predictor import ClientGone, Predictor
from maskrt.runtime.text import printable
from maskrt.runtime.web.refused import Refused
from maskrt.runtime.web.sender import check_sender

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

Answer = tuple[int, dict[str, Any]]
IsGone = Callable[[], Awaitable[bool]]
Answering = Callable[[bytes, IsGone], Awaitable[Answer]]
ErrorBody = Callable[[int, str, str], dict[str, Any]]
LONGEST_LINE = 300


@dataclass(frozen=True)
class Service:
    """The service: the predictor and the settings behind the routes.

    Args:
        model_id: the model's name for both tools.
        model_version: version that Label Studio keeps with a prediction.
        token: token that requests need; None for no token.
        max_bytes: largest size of a request.
        tell: gets a line for every failed request; the line holds nothing of a picture.
    """

    predictor: Predictor
    pictures: Pictures
    model_id: str
    model_version: str
    token: str | None
    max_bytes: int
    tell: Callable[[str], None]

    @cached_property
    def load(self) -> Load:
        """The requests that are being answered."""
        return Load(self.max_bytes)


def make_app(service: Service) -> Starlette:
    """Make the application with the routes of both tools."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    def route(path: str, method: str, answer: Answering, as_body: ErrorBody) -> Route:
        async def endpoint(request: Request) -> Response:
            return await _respond(request, service, answer, as_body)

        return Route(path, endpoint, methods=[method])

    tables = (
        (_label_studio_routes(service), _label_studio_error),
        (_x_anylabeling_routes(service), _x_anylabeling_error),
    )
    return Starlette(
        routes=[
            route(path, method, answer, as_body)
            for table, as_body in tables
            for (method, path), answer in table.items()
        ]
    )


def _label_studio_routes(service: Service) -> dict[tuple[str, str], Answering]:
    async def predict(body: bytes, is_gone: IsGone) -> Answer:
        return 200, await label_studio.predict(
            body, service.model_version, service.predictor, service.pictures, is_gone
        )

    return {
        ("GET", "/"): _plain(_health),
        ("GET", "/health"): _plain(_health),
        ("GET", "/metrics"): _plain(lambda _: (200, {})),
        ("POST", "/setup"): _plain(lambda body: (200, label_studio.setup(body, service.model_version))),
        ("POST", "/predict"): predict,
        ("POST", "/webhook"): _plain(label_studio.webhook),
    }


def _x_anylabeling_routes(service: Service) -> dict[tuple[str, str], Answering]:
    name = service.model_id

    async def predict(body: bytes, is_gone: IsGone) -> Answer:
        return 200, await x_anylabeling.predict(body, name, service.predictor, is_gone)

    return {
        ("GET", "/v1/models"): _plain(lambda _: (200, x_anylabeling.models(name, f"maskrt {name}"))),
        ("POST", "/v1/predict"): predict,
    }


def _plain(answer: Callable[[bytes], Answer]) -> Answering:
    """Make an answer that needs no network: in a thread, so that the server goes on listening."""

    async def answering(body: bytes, _: IsGone) -> Answer:
        from starlette.concurrency import run_in_threadpool

        return await run_in_threadpool(answer, body)

    return answering


def _health(_: bytes) -> Answer:
    """Answer with the health fields of both tools, which ask at the same address."""
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    return 200, {"status": "UP", "model_class": "maskrt", "models_loaded": 1, "timestamp": now}


def _label_studio_error(status: int, _: str, message: str) -> dict[str, Any]:
    return label_studio.error(status, message)


def _x_anylabeling_error(_: int, code: str, message: str) -> dict[str, Any]:
    return x_anylabeling.error(code, message)


async def _respond(request: Request, service: Service, answer: Answering, as_body: ErrorBody) -> Response:
    """Check, read and answer a request, and report errors."""
    from starlette.requests import ClientDisconnect
    from starlette.responses import Response

    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    try:
        if request.url.path != "/health":  # it shows only that the server runs
            check_access(request.headers, service.token)
        check_sender(request.method, request.headers)
        with service.load.body() as take:
            body = await _body(request, service.max_bytes, take)
            status, found = await answer(body, request.is_disconnected)
    except (ClientDisconnect, ClientGone):
        return Response(status_code=400)
    except Exception as error:
        status, code, message = _explained(error)
        line = f"{request.method} {request.url.path}: {status} {message}"
        service.tell(printable(line[:LONGEST_LINE]))
        found = as_body(status, code, message)
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="maskrt"'
    return Response(msgspec.json.encode(found), status, headers, "application/json")


async def _body(request: Request, max_bytes: int, take: Callable[[int], None]) -> bytes:
    """Read the body, and never hold more than `max_bytes` of it."""
    too_large = Refused(413, "TOO_LARGE", f"the request has over {max_bytes} bytes: see --max-megabytes")
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()) or len(length) > 20:  # longer ones int() may refuse
        raise Refused(400, "INVALID_REQUEST", "the header Content-Length is not a number")
    if int(length) > max_bytes:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        take(len(part))
        body += part
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _explained(error: Exception) -> tuple[int, str, str]:
    """Return status, code and one line; of a defect only the name, since its message may hold what was sent."""
    if isinstance(error, Refused):
        return error.status, error.code, str(error)
    if isinstance(error, InputError):
        return 400, "INVALID_REQUEST", str(error)
    if isinstance(error, MaskrtError):
        return 500, "INFERENCE_ERROR", str(error)
    return 500, "INFERENCE_ERROR", f"unexpected {type(error).__name__}"
