"""Label Studio's ML backend, which answers with brush masks for the clicks and boxes of a task.

Source: github.com/HumanSignal/label-studio-ml-backend (label_studio_ml/api.py, examples/segment_anything_model) and
Label Studio's own label_studio/ml, which sends the requests.
"""

import uuid
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.serve.brush_rle import encode_brush
from maskrt.runtime.serve.pictures import Pictures
from maskrt.runtime.serve.predictor import Box, Predictor, Prompt, box_between, click_at, prompts_of
from maskrt.runtime.serve.refused import invalid_request

# The webhook events after which Label Studio expects a model to learn.
TRAIN_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")


class Value(msgspec.Struct, frozen=True):
    """A point, or a box with its upper left corner, in percent of the picture's width and height."""

    x: float
    y: float
    width: float = 0
    height: float = 0
    rotation: float = 0
    keypointlabels: list[str] = []
    rectanglelabels: list[str] = []


class Region(msgspec.Struct, frozen=True):
    """A drawn region; `value` is a Value if `type` is the type of a prompt."""

    type: str
    value: dict[str, Any]
    to_name: str = ""
    is_positive: bool = True


class Context(msgspec.Struct, frozen=True):
    """The regions that were drawn since the last prediction was accepted."""

    result: list[Region] = []


class Params(msgspec.Struct, frozen=True):
    """The parameters of a request; context: present while a person annotates."""

    context: Context | None = None


class Task(msgspec.Struct, frozen=True):
    """A task; data: the picture's place, under the name that the labeling configuration gives it."""

    data: dict[str, Any]


class PredictRequest(msgspec.Struct, frozen=True):
    """The body of POST /predict."""

    tasks: list[Task]
    label_config: str = ""
    params: Params | None = None


class SetupRequest(msgspec.Struct, frozen=True):
    """The body of POST /setup; its host and token are not used, since whoever connects could name any host."""

    project: str
    schema: str


class WebhookRequest(msgspec.Struct, frozen=True):
    """The body of POST /webhook."""

    action: str


def setup(body: bytes, model_version: str) -> dict[str, Any]:
    """Answer POST /setup."""
    msgspec.json.decode(body, type=SetupRequest)
    return {"model_version": model_version}


def webhook(body: bytes) -> tuple[int, dict[str, Any]]:
    """Answer POST /webhook with a status: events are accepted, but nothing is learnt from them."""
    event = msgspec.json.decode(body, type=WebhookRequest).action
    if event not in TRAIN_EVENTS:
        return 200, {"status": "Unknown event"}
    return 201, {"result": {}, "status": "ok"}


def predict(body: bytes, model_version: str, predictor: Predictor, pictures: Pictures) -> dict[str, Any]:
    """Answer POST /predict: one prediction with a brush region per object, or none if nothing was drawn.

    Raises:
        Refused: 400, the body, the picture, the labeling configuration or a prompt cannot be used; 413, the picture is
            too large.
    """
    request = msgspec.json.decode(body, type=PredictRequest)
    context = request.params.context if request.params is not None else None
    drawn = [_prompt_region(region) for region in (context.result if context else []) if region.type in PROMPTS]
    if not drawn:
        return {"results": []}
    if len(request.tasks) != 1:
        raise invalid_request(f"{len(request.tasks)} tasks with one context: send one")
    last, value = drawn[-1]
    from_name, key = _names(request.label_config, last.to_name)
    url = request.tasks[0].data.get(key)
    if not isinstance(url, str):
        raise invalid_request(f"the task has no picture under {key[:100]!r}, as the labeling configuration names it")
    masks = predictor.masks(pictures.read(url), lambda size_hw: _prompts(drawn, size_hw))
    labels = value.keypointlabels or value.rectanglelabels
    regions = [_brush(mask, from_name, last.to_name, labels) for mask in masks if mask.any()]
    return {"results": [{"result": regions, "model_version": model_version}]}


def error(status: int, message: str) -> dict[str, Any]:
    """Return the body of a refusal."""
    return {"status": status, "detail": message}


def _prompt_region(region: Region) -> tuple[Region, Value]:
    value = msgspec.convert(region.value, Value)
    if value.rotation:
        raise invalid_request("a rotated rectangle cannot be a prompt: draw it upright")
    if not (value.keypointlabels or value.rectanglelabels):
        raise invalid_request("a prompt has no label: choose one before clicking")
    return region, value


def _prompts(drawn: list[tuple[Region, Value]], size_hw: tuple[int, int]) -> list[Prompt]:
    height, width = size_hw
    clicks, boxes = [], []
    for region, value in drawn:
        corner = value.x / 100 * width, value.y / 100 * height
        if region.type == "keypointlabels":
            clicks.append(click_at(corner, region.is_positive, size_hw))
        else:
            boxes.append(_box(corner, (value.width / 100 * width, value.height / 100 * height), size_hw))
    return prompts_of(clicks, boxes)


def _box(corner_xy: tuple[float, float], size_wh: tuple[float, float], size_hw: tuple[int, int]) -> Box:
    height, width = size_hw
    # Rounding may push a sum of percents past 100: a hundredth of a pixel does not count as outside.
    x1, y1 = corner_xy[0] + size_wh[0], corner_xy[1] + size_wh[1]
    x1 = width if width < x1 < width + 0.01 else x1
    y1 = height if height < y1 < height + 0.01 else y1
    return box_between(corner_xy, (x1, y1), size_hw)


PROMPTS = ("keypointlabels", "rectanglelabels")


def _names(label_config: str, to_name: str) -> tuple[str, str]:
    """Return the name of the brush over an image, and the image's key in a task's data."""
    if "<!" in label_config.replace("<!--", ""):  # nested entities can fill the memory
        raise invalid_request("the labeling configuration has a DOCTYPE: remove it")
    try:
        root = ElementTree.fromstring(label_config)
    except ElementTree.ParseError as error:
        raise invalid_request(f"the labeling configuration is not XML: {error}") from error
    image = next((tag for tag in root.iter("Image") if tag.get("name") == to_name), None)
    brush = next((tag for tag in root.iter("BrushLabels") if to_name in tag.get("toName", "").split(",")), None)
    if image is None or not image.get("value", "").startswith("$"):
        raise invalid_request(f'the labeling configuration has no <Image name="{to_name[:100]}" value="$...">')
    if brush is None or not brush.get("name"):
        raise invalid_request(f'the labeling configuration needs <BrushLabels name="..." toName="{to_name[:100]}">')
    return brush.get("name", ""), image.get("value", "")[1:]


def _brush(mask: NDArray[np.bool_], from_name: str, to_name: str, labels: list[str]) -> dict[str, Any]:
    height, width = mask.shape
    return {
        "id": uuid.uuid4().hex[:10],
        "from_name": from_name,
        "to_name": to_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": labels[:1]},
        "type": "brushlabels",
        "readonly": False,
    }
