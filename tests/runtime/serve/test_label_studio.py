"""Label Studio's requests, as it sends them, and the answers, field for field."""

import numpy as np
import pytest
from serve_session import png
from unpacked import unpacked

from maskrt.runtime.errors import NetworkError
from maskrt.runtime.interactive.clicks import Click

CONFIG = """
<View>
  <!-- over one picture -->
  <Image name="image" value="$photo" zoom="true"/>
  <BrushLabels name="brush" toName="image"><Label value="Banana" background="#FF0000"/></BrushLabels>
  <KeyPointLabels name="point" toName="image" smart="true"><Label value="Banana"/></KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true"><Label value="Banana"/></RectangleLabels>
</View>
"""


def keypoint(x, y, **more):
    """A click, in percent."""
    value = {"x": x, "y": y, "width": 0.32, "labels": ["Banana"], "keypointlabels": ["Banana"]}
    common = {"original_width": 60, "original_height": 40, "image_rotation": 0, "origin": "manual"}
    names = {"id": "fBWv1t0S2L", "from_name": "point", "to_name": "image", "type": "keypointlabels"}
    return {**common, "value": value, "is_positive": True, **names, **more}


def rectangle(x, y, width, height, rotation=0):
    """A box, in percent."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": ["Banana"]}
    return {"value": value, "from_name": "box", "to_name": "image", "type": "rectanglelabels", "id": "aaa"}


def asked(image, *regions, config=CONFIG, **more):
    """The body of POST /predict."""
    return {
        "tasks": [{"id": 7, "data": {"photo": image}, "project": 1, "drafts": [], "predictions": []}],
        "project": "1.1700000000",
        "label_config": config,
        "params": {"login": None, "password": None, "context": {"result": list(regions)}},
        **more,
    }


def mask_of(region, height=40, width=60):
    channels = unpacked(region["value"]["rle"]).reshape(height, width, 4)
    assert (channels == channels[..., :1]).all()
    assert set(np.unique(channels)) <= {0, 255}
    return channels[..., 3] == 255


@pytest.mark.parametrize("path", ["/health", "/"])
def test_health(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    found = answer.json()
    assert found.pop("timestamp").endswith("Z")
    assert found == {"status": "UP", "model_class": "maskrt", "models_loaded": 1}


def test_metrics(client):
    assert client.get("/metrics").json() == {}


def test_setup(client):
    body = {
        "project": "1.1700000000",
        "schema": CONFIG,
        "hostname": "http://elsewhere",
        "access_token": "x",
        "extra_params": None,
    }
    answer = client.post("/setup", json=body)
    assert (answer.status_code, answer.json()) == (200, {"model_version": "ward-0123abcd"})


@pytest.mark.parametrize(
    ("action", "status", "expected"),
    [
        ("ANNOTATION_CREATED", 201, {"result": {}, "status": "ok"}),
        ("START_TRAINING", 201, {"result": {}, "status": "ok"}),
        ("PROJECT_UPDATED", 200, {"status": "Unknown event"}),
    ],
)
def test_webhook(client, session, action, status, expected):
    answer = client.post("/webhook", json={"action": action, "project": {"id": 1}, "annotation": {"result": []}})
    assert (answer.status_code, answer.json()) == (status, expected)
    assert session.asked == []


def test_a_click_gives_a_brush(client, session, rgb, data_url):
    answer = client.post("/predict", json=asked(data_url, keypoint(50.5, 25.9)))
    assert answer.status_code == 200
    (prediction,) = answer.json()["results"]
    (region,) = prediction.pop("result")
    assert prediction == {"model_version": "ward-0123abcd"}
    assert np.array_equal(session.pictures[0], rgb)
    assert session.asked == [((Click(30, 10, True),), None)]
    expected = np.zeros((40, 60), np.bool_)
    expected[8:13, 28:33] = True
    assert np.array_equal(mask_of(region), expected)
    assert len(region.pop("id")) == 10
    del region["value"]["rle"]
    assert region == {
        "from_name": "brush",
        "to_name": "image",
        "original_width": 60,
        "original_height": 40,
        "image_rotation": 0,
        "value": {"format": "rle", "brushlabels": ["Banana"]},
        "type": "brushlabels",
        "readonly": False,
    }


def test_clicks_and_a_box_are_one_object(client, session, data_url):
    regions = [rectangle(10, 10, 50, 50), keypoint(30, 30), keypoint(40, 40, is_positive=False)]
    (prediction,) = client.post("/predict", json=asked(data_url, *regions)).json()["results"]
    assert len(prediction["result"]) == 1
    assert session.asked == [((Click(18, 12, True), Click(24, 16, False)), (6, 4, 36, 24))]


def test_the_far_corner_and_the_sign_that_was_left_out(client, session, data_url):
    region = keypoint(100, 100)
    del region["is_positive"]
    client.post("/predict", json=asked(data_url, region, rectangle(33.4, 0, 66.60000000000001, 100)))
    assert session.asked == [((Click(59, 39, True),), (20, 0, 59, 39))]


def test_other_regions_are_no_prompts(client, session, data_url):
    brush = {"type": "brushlabels", "value": {"format": "rle", "rle": [0], "brushlabels": ["Banana"]}, "id": "b"}
    client.post("/predict", json=asked(data_url, brush, keypoint(50, 50)))
    assert session.asked == [((Click(30, 20, True),), None)]
    assert client.post("/predict", json=asked(data_url, brush)).json() == {"results": []}


@pytest.mark.parametrize("params", [{}, {"context": None}, {"context": {}}, {"context": {"result": []}}, None])
def test_without_a_context_there_are_no_results(client, session, data_url, params):
    answer = client.post("/predict", json=asked(data_url, params=params))
    assert (answer.status_code, answer.json()) == (200, {"results": []})
    assert session.pictures == []


def test_an_empty_mask_is_a_prediction_without_regions(client, data_url):
    answer = client.post("/predict", json=asked(data_url, keypoint(50, 50, is_positive=False)))
    assert answer.json() == {"results": [{"result": [], "model_version": "ward-0123abcd"}]}


def test_the_brush_and_picture_of_the_regions_are_taken(client, session, rgb, data_url):
    config = """<View><Image name="left" value="$a"/><Image name="right" value="$photo"/>
      <BrushLabels name="first" toName="left"/><BrushLabels name="second" toName="right"/></View>"""
    answer = client.post("/predict", json=asked(data_url, keypoint(50, 50, to_name="right"), config=config))
    region = answer.json()["results"][0]["result"][0]
    assert (region["from_name"], region["to_name"]) == ("second", "right")


def test_a_local_file(client, session, rgb, images):
    (images / "ward 3").mkdir()
    (images / "ward 3" / "ä.png").write_bytes(png(rgb))
    url = "/data/local-files/?d=ward%203/%C3%A4.png"
    assert client.post("/predict", json=asked(url, keypoint(50, 50))).status_code == 200
    assert np.array_equal(session.pictures[0], rgb)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "the labeling configuration is not XML: no element found: line 1, column 0"),
        ("<View>", "the labeling configuration is not XML: "),
        ("<View/>", 'the labeling configuration has no <Image name="image" value="$...">'),
        ('<View><Image name="image" value="a.png"/></View>', "the labeling configuration has no <Image "),
        (
            '<View><Image name="image" value="$photo"/></View>',
            'the labeling configuration needs <BrushLabels name="..." toName="image">',
        ),
        ('<!DOCTYPE v [<!ENTITY a "aaaa">]><View>&a;</View>', "the labeling configuration has a DOCTYPE: remove it"),
        (CONFIG.replace("$photo", "$other"), "the task has no picture under 'other'"),
    ],
)
def test_configurations_that_cannot_be_used(client, session, refusal, data_url, config, message):
    answer = client.post("/predict", json=asked(data_url, keypoint(50, 50), config=config))
    assert refusal(answer, 400).startswith(message)
    assert answer.json().keys() == {"status", "detail"}
    assert answer.json()["status"] == 400
    assert session.pictures == []


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (keypoint(101, 50), "a point at 60.6, 20 lies outside the picture of 60 x 40"),
        (keypoint(50, -1), "a point at 30, -0.4 lies outside the picture of 60 x 40"),
        (rectangle(50, 50, 51, 10), "a point at 60.6, 24 lies outside the picture of 60 x 40"),
        (rectangle(10, 10, 20, 20, rotation=30), "a rotated rectangle cannot be a prompt: draw it upright"),
        ({**keypoint(1, 1), "value": {"x": 1, "y": 1}}, "a prompt has no label: choose one before clicking"),
        ({**keypoint(1, 1), "value": {"y": 1}}, "the request cannot be read: Object missing required field `x`"),
        ({**keypoint(1, 1), "value": None}, "the request cannot be read: "),
    ],
)
def test_prompts_that_cannot_be_used(client, session, refusal, data_url, region, message):
    assert refusal(client.post("/predict", json=asked(data_url, region)), 400).startswith(message)
    assert session.asked == []


def test_two_tasks_with_one_context(client, refusal, data_url):
    body = asked(data_url, keypoint(1, 1))
    body["tasks"] *= 2
    assert refusal(client.post("/predict", json=body), 400) == "2 tasks with one context: send one"


@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 50_000])
def test_bodies_that_cannot_be_read(client, refusal, path, body):
    assert refusal(client.post(path, content=body, headers={"Content-Type": "application/json"}), 400).startswith(
        "the request cannot be read: "
    )


def test_a_damaged_picture_and_a_failure(client, session, told, data_url):
    answer = client.post("/predict", json=asked("data:image/png;base64,AAAA", keypoint(1, 1)))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("the picture is not an image that maskrt reads")
    session.failure = NetworkError("decoder returned NaN: run maskrt verify")
    answer = client.post("/predict", json=asked(data_url, keypoint(1, 1)))
    assert answer.json() == {"status": 500, "detail": "decoder returned NaN: run maskrt verify"}
    assert len(told) == 2
