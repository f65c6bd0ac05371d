"""The server's routes, and the one place where errors become statuses."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.serve import label_studio, x_anylabeling
from maskrt.runtime.serve.access import check_access, check_page
from maskrt.runtime.serve.pictures import Pictures
from maskrt.runtime.serve.predictor import Predictor
from maskrt.runtime.serve.refused import Refused, invalid_request
from maskrt.runtime.serve.turns import gone

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

Answer = tuple[int, dict[str, Any]]
ErrorBody = Callable[[int, str, str], dict[str, Any]]


# Each may hold a body of the largest size; one request more gets 503. Only those with the right token count.
MOST_REQUESTS = 16


class Places:
    """The places for requests that are read and answered."""

    def __init__(self, count: int) -> None:
        self._free = count

    async def __aenter__(self) -> None:
        if self._free == 0:
            raise Refused(503, "BUSY", "the server answers as many requests as it can: try again in a moment")
        self._free -= 1

    async def __aexit__(self, *error: object) -> None:
        self._free += 1


@dataclass(frozen=True)
class Service:
    """The service: the predictor and the settings behind the routes.

    Args:
        model_id: the model's name for both tools.
        model_version: version that Label Studio keeps with a prediction.
        token: token that requests need; None for no token.
        max_bytes: largest size of a request.
        tell: gets a line for every failed request; the line holds nothing of a picture.
        places: for the requests that are answered at the same time.
    """

    predictor: Predictor
    pictures: Pictures
    model_id: str
    model_version: str
    token: str | None
    max_bytes: int
    tell: Callable[[str], None]
    places: Places = field(default_factory=lambda: Places(MOST_REQUESTS))


def make_app(service: Service) -> Starlette:
    """Make the application with the routes of both tools."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    def route(path: str, method: str, answer: Callable[[bytes], Answer], as_body: ErrorBody) -> Route:
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


def _label_studio_routes(service: Service) -> dict[tuple[str, str], Callable[[bytes], Answer]]:
    def predict(body: bytes) -> Answer:
        return 200, label_studio.predict(body, service.model_version, service.predictor, service.pictures)

    return {
        ("GET", "/"): _health,
        ("GET", "/health"): _health,
        ("GET", "/metrics"): lambda _: (200, {}),
        ("POST", "/setup"): lambda body: (200, label_studio.setup(body, service.model_version)),
        ("POST", "/predict"): predict,
        ("POST", "/webhook"): label_studio.webhook,
    }


def _x_anylabeling_routes(service: Service) -> dict[tuple[str, str], Callable[[bytes], Answer]]:
    name = service.model_id
    return {
        ("GET", "/v1/models"): lambda _: (200, x_anylabeling.models(name, f"maskrt {name}")),
        ("POST", "/v1/predict"): lambda body: (200, x_anylabeling.predict(body, name, service.predictor)),
    }


def _health(_: bytes) -> Answer:
    """Answer with the health fields of both tools, which ask at the same address."""
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    return 200, {"status": "UP", "model_class": "maskrt", "models_loaded": 1, "timestamp": now}


def _label_studio_error(status: int, _: str, message: str) -> dict[str, Any]:
    return label_studio.error(status, message)


def _x_anylabeling_error(_: int, code: str, message: str) -> dict[str, Any]:
    return x_anylabeling.error(code, message)


async def _respond(
    request: Request, service: Service, answer: Callable[[bytes], Answer], as_body: ErrorBody
) -> Response:
    """Check and read a request, answer it in a thread so that the server goes on listening, and report errors."""
    from starlette.requests import ClientDisconnect
    from starlette.responses import Response

    headers = {"Cache-Control": "no-store"}
    try:
        if request.url.path != "/health":  # it shows only that the server runs
            check_access(request.headers, service.token)
            check_page(request.headers, request.method)
        async with service.places:
            body = await _body(request, service.max_bytes)
            status, found = await _answered(request, answer, body)
    except ClientDisconnect:
        return Response(status_code=400)
    except Exception as error:
        status, code, message = _explained(error)
        service.tell(f"{request.method} {request.url.path}: {status} {message}")
        found = as_body(status, code, message)
        if status == 503:
            headers["Retry-After"] = "1"
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="maskrt"'
    return Response(msgspec.json.encode(found), status, headers, "application/json")


async def _answered(request: Request, answer: Callable[[bytes], Answer], body: bytes) -> Answer:
    """Answer in a thread, which hears when the client goes."""
    from starlette.concurrency import run_in_threadpool

    event = threading.Event()
    gone.set(event)

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(0.2)
        event.set()

    watching = asyncio.create_task(watch())
    try:
        return await run_in_threadpool(answer, body)
    finally:
        watching.cancel()


async def _body(request: Request, max_bytes: int) -> bytes:
    """Read the body, and never hold more than `max_bytes` of it."""
    too_large = Refused(413, "TOO_LARGE", f"the request has over {max_bytes} bytes: see --max-megabytes")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _explained(error: Exception) -> tuple[int, str, str]:
    """Return status, code and one line; of a defect only the name, since its message may hold what was sent."""
    if isinstance(error, Refused):
        return error.status, error.code, str(error)
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError | RecursionError):
        refused = invalid_request(f"the request cannot be read: {error}")
        return refused.status, refused.code, str(refused)
    if isinstance(error, InputError):
        return 400, "INVALID_REQUEST", str(error)
    if isinstance(error, MaskrtError):
        return 500, "INFERENCE_ERROR", str(error)
    return 500, "INFERENCE_ERROR", f"unexpected {type(error).__name__}"
