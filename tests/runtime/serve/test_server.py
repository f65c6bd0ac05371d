"""The command: a real server in a process of its own, and options that it refuses."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import interruptible
import numpy as np
import pytest
from serve_session import FakeSession, png

# `maskrt` with a session that needs no networks.
SCRIPT = """
import contextlib, sys, types
sys.path.insert(0, {tests!r})
from serve_session import FakeSession
stand_in = types.ModuleType("maskrt.runtime.interactive.session")
stand_in.open_interactive = lambda *_, **__: contextlib.nullcontext(FakeSession())
sys.modules["maskrt.runtime.interactive.session"] = stand_in
from maskrt.cli.main import main
main(sys.argv[1:])
"""
TESTS = Path(__file__).parents[2] / "helpers"
PICTURE = base64.b64encode(png(np.zeros((40, 60, 3), np.uint8))).decode()


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in this process."""
    module = ModuleType("maskrt.runtime.interactive.session")
    module.open_interactive = lambda *_, **__: nullcontext(FakeSession())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


@contextmanager
def served(bundle: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A running server, its URL and its token."""
    command = [sys.executable, "-c", SCRIPT.format(tests=str(TESTS)), "serve", str(bundle), "--port", "0", *options]
    process = interruptible.start(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        found = re.fullmatch(r"serving tiny at (http://127\.0\.0\.1:\d+)\n", said)
        assert found is not None, said
        token = process.stderr.readline().removeprefix("token: ").strip()
        yield process, found[1], token
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def ask(url: str, body: Any = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(
        urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}), timeout=60
    ) as answer:
        return json.load(answer)


def test_a_server_answers_both_tools_and_stops_with_ctrl_c(tiny_bundle: Path) -> None:
    with served(tiny_bundle) as (process, url, token):
        assert ask(f"{url}/health")["status"] == "UP"
        assert list(ask(f"{url}/v1/models", Token=token)["data"]) == ["tiny"]
        body = {
            "model": "tiny",
            "image": PICTURE,
            "params": {"marks": [{"type": "point", "data": [20, 10], "label": 1}]},
        }
        (shape,) = ask(f"{url}/v1/predict", body, Token=token)["data"]["shapes"]
        assert shape["points"][0] == [18, 8]
        basic = "Basic " + base64.b64encode(f"maskrt:{token}".encode()).decode()
        version = ask(f"{url}/setup", {"project": "1.1", "schema": "<View/>"}, Authorization=basic)["model_version"]
        assert re.fullmatch("tiny-[0-9a-f]{8}", version)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(f"{url}/v1/models", Token="wrong")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        rest = process.stderr.read()
    message = "the token is missing or wrong: maskrt serve prints it at the start"
    assert rest == f"GET /v1/models: 401 {message}\ninterrupted\n"


def test_the_token_can_come_from_the_environment(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKRT_TOKEN", "from-outside")
    with served(tiny_bundle) as (_, url, token):
        assert token == "from-outside"
        assert ask(f"{url}/", Token=token)["status"] == "UP"


def test_no_token(tiny_bundle: Path) -> None:
    with served(tiny_bundle, "--token", "none") as (_, url, token):
        assert token == "none"
        assert list(ask(f"{url}/v1/models")["data"]) == ["tiny"]


def test_a_port_that_is_taken(maskrt: Callable[..., tuple[int, str, str]], tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, error = maskrt("serve", tiny_bundle, "--port", port)
    assert code == 1
    assert error.startswith(f"error: cannot listen at 127.0.0.1:{port} (")
    assert error.endswith("): choose another --port\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0", "--token", "none"], "--token none with --host 0.0.0.0: others could use this server"),
        (["--token", ""], "--token is empty"),
        (["--images", "/no/such/folder"], "--images /no/such/folder: no such folder"),
        (["--label-studio", "studio:8080"], "--label-studio: 'studio:8080' is not a usable URL"),
        (["--host", "256.1.1.1"], "--host 256.1.1.1: no such address"),
    ],
)
def test_options_that_are_refused(
    maskrt: Callable[..., tuple[int, str, str]], tiny_bundle: Path, options: list[str], message: str
) -> None:
    code, _, error = maskrt("serve", tiny_bundle, "--port", 0, *options)
    assert code == 2
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_without_the_extra_the_command_says_what_to_install(tiny_bundle: Path) -> None:
    script = "import sys; sys.modules['uvicorn'] = sys.modules['starlette'] = None\n" + SCRIPT.format(tests=str(TESTS))
    command = [sys.executable, "-c", script, "serve", str(tiny_bundle), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'maskrt[annotate]'" in done.stderr
