"""Requests that are wrong somewhere: each is answered, or refused with a sentence; none is a failure."""

import base64
import json

import numpy as np
import pytest
from mutated import VALUES, mutated
from serve_session import png

COUNT = 150
PICTURE = "data:image/png;base64," + base64.b64encode(png(np.zeros((40, 60, 3), np.uint8))).decode()
CONFIG = """<View><Image name="image" value="$photo"/><BrushLabels name="brush" toName="image"/></View>"""
POINT = {"x": 50, "y": 25, "width": 0.3, "keypointlabels": ["a"]}
BOX = {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["a"]}
REGIONS = [
    {"type": "keypointlabels", "value": POINT, "to_name": "image", "is_positive": True},
    {"type": "rectanglelabels", "value": BOX, "to_name": "image"},
    {"type": "brushlabels", "value": {"rle": [1, 2, 3]}, "to_name": "image"},
]
MARKS = [
    {"type": "point", "data": [20, 10], "label": 1},
    {"type": "point", "data": [30, 10], "label": 0},
    {"type": "rectangle", "data": [5, 5, 40, 30]},
]
BODIES = {
    "/predict": {
        "tasks": [{"id": 7, "data": {"photo": PICTURE}}],
        "label_config": CONFIG,
        "params": {"context": {"result": REGIONS}},
    },
    "/v1/predict": {"model": "ward", "image": PICTURE, "params": {"marks": MARKS, "epsilon_factor": 0.001}},
    "/setup": {"project": "1.1", "schema": CONFIG, "hostname": "http://a", "access_token": "x"},
    "/webhook": {"action": "ANNOTATION_CREATED", "project": {"id": 1}},
}


@pytest.mark.parametrize("path", BODIES)
def test_bodies(client, told, path):
    rng = np.random.default_rng(len(path))
    statuses = set()
    for _ in range(COUNT):
        body = mutated(BODIES[path], rng)
        answer = client.post(path, content=body)
        assert answer.status_code in (200, 201, 400, 404, 413), (body[:500], answer.text)
        if answer.status_code >= 400:
            said = answer.json()
            assert (said["error"]["message"] if "error" in said else said["detail"]).count(" ") >= 3
        statuses.add(answer.status_code)
    assert len(statuses) > 1  # some are still right, some are not
    assert client.post(path, json=BODIES[path]).status_code in (200, 201)
    assert all(line.isprintable() and len(line) <= 300 for line in told)


@pytest.mark.parametrize("value", VALUES)
def test_every_odd_value_as_a_number(client, value):
    for path, place in (("/v1/predict", '"data": [20, '), ("/predict", '"x": 50, "y": ')):
        text = json.dumps(BODIES[path])
        number = "10]" if path.startswith("/v1") else "25,"
        assert place + number in text
        body = text.replace(place + number, place + value + number[-1]).encode("utf-8", "surrogatepass")
        assert client.post(path, content=body).status_code in (200, 400)


@pytest.mark.parametrize("picture", [b'"\xff"', b"7", b"null", b'["a"]'])
def test_a_picture_that_is_no_text(client, refusal, picture):
    body = json.dumps(BODIES["/predict"]).encode().replace(json.dumps(PICTURE).encode(), picture)
    assert "the task has no picture under 'photo'" in refusal(client.post("/predict", content=body), 400)


def test_control_characters_are_not_printed(client, told):
    regions = [{**REGIONS[0], "to_name": "\x1b[31m\nfailed"}]
    body = {**BODIES["/predict"], "params": {"context": {"result": regions}}}
    assert client.post("/predict", json=body).status_code == 400
    (line,) = told
    assert r"\x1b[31m\nfailed" in line
    assert line.isprintable()


@pytest.mark.parametrize(
    "target",
    [
        "/%00",
        "/%ff%fe",
        "/" + "a" * 9000,
        "/../../etc/passwd",
        "/v1/models?" + "a=1&" * 2000,
        "/v1/predict/" + "9" * 5000,
    ],
)
def test_addresses(client, target):
    assert client.get(target).status_code in (200, 404, 405)


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "²", "٣", ""])
def test_lengths_that_are_no_numbers(client, refusal, length):
    headers = {"Content-Length": length.encode()}
    assert refusal(client.post("/setup", content=b"{}", headers=headers), 400).startswith("the header Content-Length")
