"""A server with a fake session, asked without a network."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from serve_session import FakeSession, png
from starlette.testclient import TestClient

from maskrt.runtime.serve.app import Service, make_app
from maskrt.runtime.serve.pictures import Pictures
from maskrt.runtime.serve.predictor import Predictor

TOKEN = "s3cret-token"
MAX_BYTES, MAX_PIXELS = 60_000, 10_000


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def told() -> list[str]:
    """Lines of the server about requests that failed."""
    return []


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The folder of --images."""
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def make_client(session: FakeSession, told: list[str], images: Path) -> Callable[..., TestClient]:
    """make_client(token, pictures, max_bytes) -> a client that sends no token."""

    def make(token: str | None = TOKEN, pictures: Pictures | None = None, max_bytes: int = MAX_BYTES) -> TestClient:
        sources = pictures or Pictures(images, None, "", MAX_BYTES)
        predictor = Predictor(session, MAX_PIXELS)
        service = Service(predictor, sources, "ward", "ward-0123abcd", token, max_bytes, told.append)
        client = TestClient(make_app(service), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
        client.headers["Content-Type"] = "application/json"
        return client

    return make


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    """A client with the token, as X-AnyLabeling sends it."""
    client = make_client()
    client.headers["Token"] = TOKEN
    return client


@pytest.fixture
def rgb(rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def data_url(rgb: NDArray[np.uint8]) -> str:
    return as_data_url(png(rgb))


def as_data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def refusal(told: list[str]) -> Callable[[Any, int], str]:
    """refusal(response, status) -> its message, told in one line, whichever tool's form it has."""

    def read(response: Any, status: int) -> str:
        assert response.status_code == status, response.text
        answer = response.json()
        message = answer["error"]["message"] if "error" in answer else answer["detail"]
        assert told == [f"{response.request.method} {response.request.url.path}: {status} {message}"]
        assert "\n" not in message
        return str(message)

    return read
