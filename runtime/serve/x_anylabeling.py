"""X-AnyLabeling's remote server, which lists models and answers marks on a picture with polygons.

Source: github.com/CVHub520/X-AnyLabeling-Server (app/schemas, docs/openapi.json) and what X-AnyLabeling's
services/auto_labeling/remote_server.py reads of the answers.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from maskrt.runtime.serve.pictures import decode_base64
from maskrt.runtime.serve.polygons import Points, polygons
from maskrt.runtime.serve.predictor import Predictor, Prompt, box_between, check_counts, click_at, prompts_of
from maskrt.runtime.serve.refused import decoded, invalid_request
from maskrt.runtime.web.refused import Refused

# The buttons that X-AnyLabeling shows for this model.
WIDGETS = ("button_add_point", "button_remove_point", "button_add_rect", "button_clear", "button_finish_object")
MOST_PARAMS_BYTES = 2_000_000


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
    """The body of POST /v1/predict: `image` is a data URL, or base64 alone; params: see Params."""

    model: str
    image: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


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


async def predict(
    body: bytes, model_id: str, predictor: Predictor, is_gone: Callable[[], Awaitable[bool]]
) -> dict[str, Any]:
    """Answer POST /v1/predict.

    Raises:
        Refused: 400, the body, the picture or a mark cannot be used; 404, there is no such model.
    """
    from starlette.concurrency import run_in_threadpool

    picture, params = await run_in_threadpool(_asked, body, model_id)
    found: list[list[dict[str, Any]]] = []
    if params.marks:
        found = await predictor.draw(
            picture,
            lambda size_hw: _prompts(params.marks, size_hw),
            lambda mask: [_shape(polygon) for polygon in polygons(mask, params.epsilon_factor)],
            is_gone,
        )
    shapes = [shape for of_one in found for shape in of_one]
    return {"success": True, "data": {"shapes": shapes, "description": "", "replace": False}}


def _asked(body: bytes, model_id: str) -> tuple[bytes, Params]:
    """Return the picture, empty if there is no mark, and the settings."""
    request = decoded(body, Request)
    if request.model != model_id:
        raise Refused(
            404, "MODEL_NOT_FOUND", f"there is no model {request.model[:100]!r}: this server has {model_id!r}"
        )
    params = decoded(request.params, Params, "$.params", MOST_PARAMS_BYTES)
    check_counts(*(sum(mark.type == kind for mark in params.marks) for kind in ("point", "rectangle")))
    if not 0 <= params.epsilon_factor <= 1:
        raise invalid_request(f"epsilon_factor {params.epsilon_factor}: expected 0 to 1")
    return decode_base64(request.image) if params.marks else b"", params


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
