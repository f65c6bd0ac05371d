"""Where a task's picture may come from, with a Label Studio of a few lines."""

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maskrt.runtime.errors import InputError
from maskrt.runtime.serve.pictures import Origin, Pictures
from maskrt.runtime.serve.server import Limits, pictures_of
from maskrt.runtime.web.refused import Refused

LIMIT = 1000


class Studio(http.server.BaseHTTPRequestHandler):
    """Answers with the path; /r/URL sends elsewhere; /big is too large."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        type(self).asked.append((self.path, self.headers["Authorization"]))
        if self.path.startswith("/data/r/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/data/r/"))
            self.end_headers()
        elif self.path == "/data/missing":
            self.send_error(404)
        else:
            body = b"x" * 1001 if self.path == "/data/big" else self.path.encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def studio() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Its URL, and what it was asked with which authorization."""
    handler: Any = type("Handler", (Studio,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
        server.shutdown()


def pictures(url: str | None = None, images: Path | None = None) -> Pictures:
    return Pictures(images, None if url is None else Origin.of(url), "key", LIMIT)


def test_data_urls() -> None:
    assert pictures().read("data:image/png;base64,YWJj") == b"abc"
    assert pictures().read("data:;base64,") == b""


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/local-files/?d=a%20b/c.png", "a b/c.png"),
        ("/data/local-files/?d=%C3%A4.png&x=1", "ä.png"),
        ("/data/upload/3/12-c.png", "upload/3/12-c.png"),
        ("upload/3/12-c.png", "upload/3/12-c.png"),
        ("/upload/3/12-c.png", "upload/3/12-c.png"),
        ("/data/upload/3/a%20b.png", "upload/3/a b.png"),
    ],
)
def test_files_of_the_folder(tmp_path: Path, url: str, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"here")
    assert pictures(images=tmp_path).read(url) == b"here"


@pytest.mark.parametrize(
    "url",
    [
        "/data/local-files/?d=../secret",
        "/data/local-files/?d=a/../../secret",
        "/data/local-files/?d=%2e%2e/secret",
        "/data/local-files/?d=link",
        "/data/local-files/?d=",
        "/data/local-files/",
        "/data/local-files/?d=sub",
        "/data/local-files/?d=pipe",
        "/data/local-files/?d=a%00b",
        "/data/local-files/?d=" + "a" * 5000,
        "/data/upload/../../secret",
        "/data/upload/%2e%2e/%2e%2e/secret",
        "/data/local-files/?d=missing.png",
    ],
)
def test_nothing_outside_the_folder_and_nothing_but_files(tmp_path: Path, url: str) -> None:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (images / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(images / "pipe")
    for path in (url, url.replace("../secret", str(tmp_path / "secret"))):
        with pytest.raises(Refused, match="is not in the folder of --images") as caught:
            pictures(images=images).read(path)
        assert caught.value.status == 400
        assert "secret" not in str(caught.value)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x" * LIMIT)
    assert len(pictures(images=tmp_path).read("/data/local-files/?d=a.png")) == LIMIT
    (tmp_path / "a.png").write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(Refused, match="over 1000 bytes") as caught:
        pictures(images=tmp_path).read("/data/local-files/?d=a.png")
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("/data/upload/1/a b.png", "/data/upload/1/a%20b.png"),
        ("/data/local-files/?d=x/%C3%A4.png", "/data/local-files/?d=x/%C3%A4.png"),
        ("upload/1/a.png", "/data/upload/1/a.png"),
        ("URL/data/ä.png?a=b&c=d", "/data/%C3%A4.png?a=b&c=d"),
        ("URL/data/x#part", "/data/x"),
        ("/data/r//data/there", "/data/there"),
        ("/data/x\r\nHost: evil", "/data/x%0D%0AHost:%20evil"),
    ],
)
def test_label_studio_is_asked_with_its_key(
    studio: tuple[str, list[tuple[str, str | None]]], asked: str, expected: str
) -> None:
    url, seen = studio
    assert pictures(url).read(asked.replace("URL", url)) == expected.encode()
    assert seen[-1] == (expected, "Token key")


def test_without_a_key_none_is_sent(studio: tuple[str, list[tuple[str, str | None]]]) -> None:
    url, seen = studio
    Pictures(None, Origin.of(url), "", LIMIT).read("/data/a")
    assert seen == [("/data/a", None)]


def test_uploads_are_asked_for_where_there_is_no_folder_only(
    studio: tuple[str, list[tuple[str, str | None]]], tmp_path: Path
) -> None:
    url, seen = studio
    with pytest.raises(Refused, match="--images"):
        pictures(url, tmp_path).read("/data/upload/1/a.png")
    assert pictures(url, tmp_path).read("/data/other/a.png") == b"/data/other/a.png"
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/data/missing", "Label Studio answers 404 to the task's picture: see LABEL_STUDIO_API_KEY"),
        ("/data/big", "the task's picture has over 1000 bytes"),
        ("/data/r/http://127.0.0.1:1/x", "another host: not followed"),
        ("/data/r/http://localhost:{port}/x", "another host: not followed"),
        ("/data/r/ftp://127.0.0.1/x", "cannot be fetched"),
        ("/data/r/file:///etc/passwd", "Label Studio answers 302"),
    ],
)
def test_answers_that_cannot_be_used(studio: tuple[str, list[tuple[str, str | None]]], path: str, message: str) -> None:
    url, _ = studio
    with pytest.raises(Refused, match=message):
        pictures(url).read(path.format(port=url.rpartition(":")[2]))


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a.png",
        "https://studio.example:8080/ls/data/a.png",
        "http://studio.example/ls/data/a.png",
        "http://studio.example:8080/data/a.png",
        "http://studio.example:8080/lsx/a.png",
        "http://studio.example:8080/ls/../admin",
        "http://studio.example:8080@evil.example/ls/a.png",
        "http://studio.example:8080.evil.example/ls/a.png",
        "http://studio.example:port/ls/a.png",
        "http://[::1/a.png",
        "http:///a.png",
    ],
)
def test_other_hosts_and_places_are_not_asked(url: str) -> None:
    for label_studio in (None, "http://studio.example:8080/ls/"):
        with pytest.raises(Refused, match="is on a host that this server does not ask: see --label-studio"):
            pictures(label_studio).read(url)


def test_a_relative_path_cannot_leave_label_studio() -> None:
    with pytest.raises(Refused, match="outside the URL of --label-studio"):
        pictures("http://studio.example:8080/ls").read("/data/../../admin")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/a", "/etc/passwd", "s3://bucket/a", "", "gopher://h"]
)
def test_other_schemes(url: str) -> None:
    with pytest.raises(Refused, match="must be a data URL, a file of Label Studio's or an"):
        pictures("http://studio.example").read(url)


def test_files_of_label_studio_need_an_option() -> None:
    with pytest.raises(Refused, match="start with --images or --label-studio"):
        pictures().read("/data/upload/1/a.png")


def test_a_host_that_does_not_answer() -> None:
    with pytest.raises(Refused, match=r"cannot be fetched \(URLError\)"):
        pictures("http://127.0.0.1:1").read("/data/a")


def test_origins() -> None:
    assert Origin.of("HTTP://Studio.Example/") == Origin("http", "studio.example", 80)
    assert Origin.of("https://[::1]/ls/").url("/ls/a") == "https://[::1]:443/ls/a"


def test_a_picture_that_takes_too_long(
    studio: tuple[str, list[tuple[str, str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskrt.runtime.serve.pictures.FETCH_S", -1)
    with pytest.raises(Refused, match="the task's picture takes over -1 s: try again"):
        pictures(studio[0]).read("/data/a")


def test_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "abc")
    made = pictures_of(tmp_path, "http://studio.example:8080", Limits(5, LIMIT))
    assert made == Pictures(tmp_path, Origin("http", "studio.example", 8080), "abc", LIMIT)
    with pytest.raises(InputError, match="no such folder"):
        pictures_of(tmp_path / "none", None, Limits(5, LIMIT))
    for url in ("studio.example:8080", "ftp://studio.example", "http://", "http://a:b"):
        with pytest.raises(InputError, match=r"--label-studio: .*expected http://HOST:PORT"):
            pictures_of(None, url, Limits(5, LIMIT))
