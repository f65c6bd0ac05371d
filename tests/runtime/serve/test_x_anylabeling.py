"""X-AnyLabeling's requests, as its client sends them, and the answers, field for field."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from serve_session import png

from maskrt.runtime.errors import NetworkError
from maskrt.runtime.interactive.clicks import Click

SQUARE = [[18.0, 8.0], [18.0, 12.0], [22.0, 12.0], [22.0, 8.0], [18.0, 8.0]]


def point(x, y, label=1):
    return {"type": "point", "data": [x, y], "label": label}


def rectangle(*corners, label=1):
    return {"type": "rectangle", "data": list(corners), "label": label}


def asked(image, *marks, model="ward", **params):
    """The body that the client sends for a picture with marks on it."""
    common = {"conf_threshold": 0.0, "iou_threshold": 0.0, "epsilon_factor": 0.001, "filter_classes": []}
    return {"model": model, "image": image, "params": {**common, "marks": list(marks), **params}}


def test_models(client):
    answer = client.get("/v1/models")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "success": True,
        "data": {
            "ward": {
                "display_name": "maskrt ward",
                "widgets": [
                    {"name": "button_add_point", "value": None},
                    {"name": "button_remove_point", "value": None},
                    {"name": "button_add_rect", "value": None},
                    {"name": "button_clear", "value": None},
                    {"name": "button_finish_object", "value": None},
                ],
                "params": {},
                "capabilities": {},
                "batch_processing_mode": None,
            }
        },
    }


def test_a_click_gives_a_polygon(client, session, rgb, data_url):
    answer = client.post("/v1/predict", json=asked(data_url, point(20, 10)))
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "data": {
            "shapes": [
                {
                    "label": "AUTOLABEL_OBJECT",
                    "shape_type": "polygon",
                    "points": SQUARE,
                    "score": None,
                    "attributes": {},
                    "description": None,
                    "difficult": False,
                    "direction": 0.0,
                    "flags": None,
                    "group_id": None,
                    "kie_linking": [],
                }
            ],
            "description": "",
            "replace": False,
        },
    }
    assert np.array_equal(session.pictures[0], rgb)
    assert session.asked == [((Click(20, 10, True),), None)]


def test_a_second_click_is_asked_of_the_same_picture(client, session, data_url):
    client.post("/v1/predict", json=asked(data_url, point(20, 10)))
    client.post("/v1/predict", json=asked(data_url, point(20, 10), point(22, 10, 0)))
    assert session.asked[1] == ((Click(20, 10, True), Click(22, 10, False)), None)
    assert len(session.pictures) == 1


def test_another_picture_is_set_also_after_one_that_cannot_be_read(client, session, rgb, data_url):
    other = "data:image/png;base64," + base64.b64encode(png(rgb[::-1].copy())).decode()
    for image in (data_url, other, "data:image/png;base64,AAAA", other, data_url):
        client.post("/v1/predict", json=asked(image, point(20, 10)))
    assert [np.array_equal(picture, rgb) for picture in session.pictures] == [True, False, True]


def test_rectangles_are_objects_of_their_own_with_the_clicks(client, session, data_url):
    marks = [rectangle(30, 20, 10, 5), point(12, 8), rectangle(0, 0, 60, 40)]
    shapes = client.post("/v1/predict", json=asked(data_url, *marks)).json()["data"]["shapes"]
    click = Click(12, 8, True)
    assert session.asked == [((click,), (10, 5, 30, 20)), ((click,), (0, 0, 59, 39))]
    assert [shape["points"][0] for shape in shapes] == [[10.0, 5.0], [0.0, 0.0]]
    assert shapes[1]["points"] == [[0.0, 0.0], [0.0, 39.0], [59.0, 39.0], [59.0, 0.0], [0.0, 0.0]]


def test_without_marks_there_are_no_shapes(client, session, data_url):
    for body in (asked(data_url), {"model": "ward", "image": data_url}):
        answer = client.post("/v1/predict", json=body)
        assert answer.json() == {"success": True, "data": {"shapes": [], "description": "", "replace": False}}
    assert session.asked == []


def test_a_mask_without_area_has_no_shapes(client, data_url):
    assert client.post("/v1/predict", json=asked(data_url, point(5, 5, 0))).json()["data"]["shapes"] == []


def test_base64_alone_and_jpeg_are_pictures_too(client, session):
    file = io.BytesIO()
    Image.new("RGB", (50, 30), (90, 90, 90)).save(file, "JPEG")
    text = base64.b64encode(file.getvalue()).decode()
    for image in (text, f"data:image/jpeg;base64,{text}"):
        assert client.post("/v1/predict", json=asked(image, point(20, 10))).status_code == 200
    assert [picture.shape for picture in session.pictures] == [(30, 50, 3)]


def test_an_unknown_model(client, data_url, refusal):
    answer = client.post("/v1/predict", json=asked(data_url, point(1, 1), model="yolo"))
    assert refusal(answer, 404) == "there is no model 'yolo': this server has 'ward'"
    assert answer.json()["error"]["code"] == "MODEL_NOT_FOUND"
    assert answer.json()["success"] is False


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("data:image/png;base64,", "the picture is an empty file: send"),
        ("data:image/png;base64,AAAA", "the picture is not an image that maskrt reads"),
        ("data:image/png;base64,***", "the picture is not base64"),
        ("data:image/png,abcd", "the picture is not a base64 data URL"),
        ("http://localhost/a.png", "the picture is not base64"),
    ],
)
def test_pictures_that_cannot_be_used(client, session, refusal, image, message):
    answer = client.post("/v1/predict", json=asked(image, point(1, 1)))
    assert refusal(answer, 400).startswith(message)
    assert answer.json()["error"]["code"] == "INVALID_IMAGE"
    assert session.pictures == []


def test_a_damaged_picture(client, refusal, rgb):
    data = bytearray(png(rgb))
    data[len(data) // 2] ^= 255
    image = base64.b64encode(bytes(data)).decode()
    assert refusal(client.post("/v1/predict", json=asked(image, point(1, 1))), 400).startswith(
        "the picture cannot be decoded"
    )


def test_a_picture_of_too_many_pixels(client, refusal):
    image = base64.b64encode(png(np.zeros((101, 100, 3), np.uint8))).decode()
    answer = client.post("/v1/predict", json=asked(image, point(1, 1)))
    assert "100 x 101, over the limit of 0.01 megapixels" in refusal(answer, 400)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (point(61, 10), "a point at 61, 10 lies outside the picture of 60 x 40"),
        (point(5, -1), "a point at 5, -1 lies outside the picture of 60 x 40"),
        (rectangle(1, 1, 10, 41), "a point at 10, 41 lies outside the picture of 60 x 40"),
        (rectangle(1, 1, 10, 11, label=0), "a rectangle cannot mark what is not the object: use points for that"),
        (rectangle(1, 1, 10), "a rectangle has 4 numbers, got 3"),
        ({"type": "point", "data": [], "label": 1}, "a point has 2 numbers, got 0"),
        ({"type": "auto_grid"}, "the request cannot be read: "),
        (point(1, 1, 2), "the request cannot be read: "),
        (point(None, 1), "the request cannot be read: Expected `float`, got `null` - at `$.params.marks[0].data[0]`"),
    ],
)
def test_marks_that_cannot_be_used(client, session, refusal, data_url, mark, message):
    answer = client.post("/v1/predict", json=asked(data_url, mark))
    assert refusal(answer, 400).startswith(message)
    assert answer.json()["error"]["code"] == "INVALID_REQUEST"
    assert session.asked == []


@pytest.mark.parametrize("factor", [-0.1, 1.5])
def test_a_tolerance_that_makes_no_sense(client, refusal, data_url, factor):
    answer = client.post("/v1/predict", json=asked(data_url, point(1, 1), epsilon_factor=factor))
    assert refusal(answer, 400) == f"epsilon_factor {factor}: expected 0 to 1"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model": "ward"}', b'{"model": 1, "image": ""}', b"\xff\xfe{}", b"[" * 50_000]
)
def test_bodies_that_cannot_be_read(client, refusal, body):
    answer = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert refusal(answer, 400).startswith("the request cannot be read: ")


def test_failures_of_the_network_and_of_the_code(client, session, told, data_url):
    body = asked(data_url, point(1, 1))
    session.failure = NetworkError("decoder returned NaN: run maskrt verify")
    answer = client.post("/v1/predict", json=body)
    assert answer.status_code == 500
    message = "decoder returned NaN: run maskrt verify"
    assert answer.json() == {"success": False, "error": {"code": "INFERENCE_ERROR", "message": message}}
    session.failure = IndexError("pixels of the picture")
    answer = client.post("/v1/predict", json=body)
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "unexpected IndexError"
    session.failure = None
    assert client.post("/v1/predict", json=body).status_code == 200
    assert told == [f"POST /v1/predict: 500 {message}", "POST /v1/predict: 500 unexpected IndexError"]
