"""X-AnyLabeling's remote server, which lists models and answers marks on a picture with polygons.

Source: github.com/CVHub520/X-AnyLabeling-Server (app/schemas, docs/openapi.json) and what X-AnyLabeling's
services/auto_labeling/remote_server.py reads of the answers.
"""

from typing import Any, Literal

import msgspec

from maskrt.runtime.serve.pictures import decode_base64
from maskrt.runtime.serve.polygons import Points, polygons
from maskrt.runtime.serve.predictor import Predictor, Prompt, box_between, click_at, prompts_of
from maskrt.runtime.serve.refused import Refused, invalid_request

# The buttons that X-AnyLabeling shows for this model.
WIDGETS = ("button_add_point", "button_remove_point", "button_add_rect", "button_clear", "button_finish_object")


class Mark(msgspec.Struct, frozen=True):
    """A prompt in pixels: x, y of a point, or of two corners of a rectangle; label 0 marks what is not the object."""

    type: Literal["point", "rectangle"]
    data: list[float]
    label: Literal[0, 1] = 1


class Params(msgspec.Struct, frozen=True):
    """The settings from the client that are used."""

    marks: list[Mark] = []
    epsilon_factor: float = 0.001


class Request(msgspec.Struct, frozen=True):
    """The body of POST /v1/predict: `image` is a data URL, or base64 alone."""

    model: str
    image: str
    params: Params = Params()


def models(model_id: str, display_name: str) -> dict[str, Any]:
    """Answer GET /v1/models; batch processing is not offered, since without a mark there is no object."""
    about: dict[str, Any] = {
        "display_name": display_name,
        "widgets": [{"name": name, "value": None} for name in WIDGETS],
        "params": {},
        "capabilities": {},
        "batch_processing_mode": None,
    }
    return {"success": True, "data": {model_id: about}}


def predict(body: bytes, model_id: str, predictor: Predictor) -> dict[str, Any]:
    """Answer POST /v1/predict.

    Raises:
        Refused: 400, the body, the picture or a mark cannot be used; 404, there is no such model.
    """
    request = msgspec.json.decode(body, type=Request)
    if request.model != model_id:
        raise Refused(
            404, "MODEL_NOT_FOUND", f"there is no model {request.model[:100]!r}: this server has {model_id!r}"
        )
    if not 0 <= request.params.epsilon_factor <= 1:
        raise invalid_request(f"epsilon_factor {request.params.epsilon_factor}: expected 0 to 1")
    shapes: list[dict[str, Any]] = []
    if request.params.marks:
        masks = predictor.masks(decode_base64(request.image), lambda size_hw: _prompts(request.params.marks, size_hw))
        for mask in masks:
            shapes += map(_shape, polygons(mask, request.params.epsilon_factor))
    return {"success": True, "data": {"shapes": shapes, "description": "", "replace": False}}


def error(code: str, message: str) -> dict[str, Any]:
    """Return the body of a refusal."""
    return {"success": False, "error": {"code": code, "message": message}}


def _prompts(marks: list[Mark], size_hw: tuple[int, int]) -> list[Prompt]:
    clicks, boxes = [], []
    for mark in marks:
        wanted = 2 if mark.type == "point" else 4
        if len(mark.data) != wanted:
            raise invalid_request(f"a {mark.type} has {wanted} numbers, got {len(mark.data)}")
        if mark.type == "point":
            clicks.append(click_at((mark.data[0], mark.data[1]), mark.label == 1, size_hw))
        elif mark.label == 1:
            boxes.append(box_between((mark.data[0], mark.data[1]), (mark.data[2], mark.data[3]), size_hw))
        else:
            raise invalid_request("a rectangle cannot mark what is not the object: use points for that")
    return prompts_of(clicks, boxes)


def _shape(polygon: Points) -> dict[str, Any]:
    """Return a polygon as one of X-AnyLabeling's shapes; the label is its own name for an unnamed object."""
    points = polygon.astype(float).tolist()
    return {
        "label": "AUTOLABEL_OBJECT",
        "shape_type": "polygon",
        "points": [*points, points[0]],  # closed, as the client's own models give it
        "score": None,
        "attributes": {},
        "description": None,
        "difficult": False,
        "direction": 0.0,
        "flags": None,
        "group_id": None,
        "kie_linking": [],
    }
