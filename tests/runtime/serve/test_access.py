"""Tokens, hosts and sizes: who is answered."""

import base64

import pytest
from serve_session import png

from maskrt.runtime.errors import InputError
from maskrt.runtime.serve.access import is_loopback, token_for

TOKEN = "s3cret-token"
PATHS = [
    ("GET", "/"),
    ("GET", "/metrics"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
    ("GET", "/v1/models"),
    ("POST", "/v1/predict"),
]


def basic(text):
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Token": ""},
        {"Token": "S3cret-token"},
        basic("maskrt:wrong"),
        basic(TOKEN),
        {"Authorization": "Basic ###"},
        {"Authorization": f"Bearer {TOKEN}"},
        {"Token": "ä".encode()},
    ],
)
def test_without_the_token_nothing_is_answered(make_client, session, told, method, path, headers):
    answer = make_client().request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="maskrt"'
    message = "the token is missing or wrong: maskrt serve prints it at the start"
    if path.startswith("/v1/"):
        assert answer.json() == {"success": False, "error": {"code": "UNAUTHORIZED", "message": message}}
    else:
        assert answer.json() == {"status": 401, "detail": message}
    assert told == [f"{method} {path}: 401 {message}"]
    assert session.pictures == []


@pytest.mark.parametrize("headers", [{"Token": TOKEN}, basic(f"anyone:{TOKEN}"), basic(f":{TOKEN}")])
def test_both_ways_to_send_the_token(make_client, headers):
    for path in ("/v1/models", "/", "/metrics"):
        assert make_client().get(path, headers=headers).status_code == 200


def test_a_token_with_a_colon_and_letters_beyond_ascii(make_client):
    client = make_client(token="pa:ss wörd")
    assert client.get("/", headers=basic("user:pa:ss wörd")).status_code == 200


def test_health_needs_no_token(make_client):
    assert make_client().get("/health").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.2:8000", 200),
        ("[::1", 401),
        ("::1", 401),
        ("127.0.0.1:999999", 401),
        ("127.0.0.1:80@evil.example", 401),
        ("2130706433", 401),
        ("10.0.0.1:8000", 401),
        ("evil.example:8000", 401),
        ("evil.example", 401),
        ("127.0.0.1.evil.example:8000", 401),
        ("localhost.evil.example", 401),
        ("", 401),
    ],
)
def test_without_a_token_only_local_names_are_answered(make_client, host, status):
    assert make_client(token=None).get("/v1/models", headers={"Host": host}).status_code == status


def test_a_request_that_is_too_large(client, session, refusal):
    answer = client.post("/v1/predict", content=b"x" * 60_001, headers={"Content-Type": "application/json"})
    assert refusal(answer, 413) == "the request has over 60000 bytes: see --max-megabytes"
    assert answer.json()["error"]["code"] == "TOO_LARGE"


def test_a_request_that_does_not_say_its_length(client, refusal):
    answer = client.post(
        "/predict", content=(b"x" * 1000 for _ in range(61)), headers={"Content-Type": "application/json"}
    )
    assert refusal(answer, 413) == "the request has over 60000 bytes: see --max-megabytes"


def test_other_paths_and_methods(client):
    assert client.get("/v1/other").status_code == 404
    assert client.get("/../etc/passwd").status_code == 404
    assert client.get("/predict").status_code == 405
    assert client.post("/v1/models").status_code == 405


def test_answers_are_not_kept_by_a_proxy_or_given_to_other_pages(client, rgb):
    image = base64.b64encode(png(rgb)).decode()
    answer = client.post("/v1/predict", json={"model": "ward", "image": image})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("token", [TOKEN, None])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_pages_of_other_sites(make_client, session, told, method, path, token, headers, status):
    if method == "GET" and status == 415:
        return
    answer = make_client(token).request(method, path, headers={"Token": TOKEN, **headers}, content=b"{}")
    assert answer.status_code == status
    assert told == [f"{method} {path}: {status} {_message(answer.json())}"]
    assert session.pictures == []


def _message(answer):
    return answer["error"]["message"] if "error" in answer else answer["detail"]


def test_random_tokens_differ():
    first, second = token_for(None, "0.0.0.0"), token_for(None, "0.0.0.0")
    assert first != second
    assert len(first) >= 20
    assert token_for("abc", "0.0.0.0") == "abc"
    assert token_for("none", "127.0.0.1") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "", "ward.local"])
def test_no_token_where_others_reach_the_server(host):
    with pytest.raises(InputError, match="--token none with --host"):
        token_for("none", host)


@pytest.mark.parametrize("token", ["", "  ", " a", "a\n"])
def test_tokens_that_a_header_would_lose(token):
    with pytest.raises(InputError, match="--token is empty"):
        token_for(token, "127.0.0.1")


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.3.4.5", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "")))
