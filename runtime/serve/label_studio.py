"""Label Studio's ML backend: brush masks for the clicks and boxes of a task that is being annotated.

Source: github.com/HumanSignal/label-studio-ml-backend (label_studio_ml/api.py, examples/segment_anything_model) and
Label Studio's own label_studio/ml, which asks.
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

# What Label Studio names in a webhook when a model may learn.
TRAIN_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")


class Value(msgspec.Struct, frozen=True):
    """A point, or a box from its upper left corner on, in percent of the picture's width and height."""

    x: float
    y: float
    width: float = 0
    height: float = 0
    rotation: float = 0
    keypointlabels: list[str] = []
    rectanglelabels: list[str] = []


class Region(msgspec.Struct, frozen=True):
    """Something that was drawn; `value` is a Value where `type` is that of a prompt."""

    type: str
    value: dict[str, Any]
    to_name: str = ""
    is_positive: bool = True


class Context(msgspec.Struct, frozen=True):
    """What was drawn since the last prediction was taken."""

    result: list[Region] = []


class Params(msgspec.Struct, frozen=True):
    """Of a request: the context, where a person is annotating."""

    context: Context | None = None


class Task(msgspec.Struct, frozen=True):
    """Of a request: where the picture is, under the name that the labeling configuration gives it."""

    data: dict[str, Any]


class PredictRequest(msgspec.Struct, frozen=True):
    """The body of POST /predict."""

    tasks: list[Task]
    label_config: str = ""
    params: Params | None = None


class SetupRequest(msgspec.Struct, frozen=True):
    """The body of POST /setup. Host and token in it are not used: whoever connects could name any host."""

    project: str
    schema: str


class WebhookRequest(msgspec.Struct, frozen=True):
    """The body of POST /webhook."""

    action: str


def setup(body: bytes, model_version: str) -> dict[str, Any]:
    """The answer to POST /setup."""
    msgspec.json.decode(body, type=SetupRequest)
    return {"model_version": model_version}


def webhook(body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and answer to POST /webhook: events are taken, and nothing is learnt from them."""
    event = msgspec.json.decode(body, type=WebhookRequest).action
    if event not in TRAIN_EVENTS:
        return 200, {"status": "Unknown event"}
    return 201, {"result": {}, "status": "ok"}


def predict(body: bytes, model_version: str, predictor: Predictor, pictures: Pictures) -> dict[str, Any]:
    """The answer to POST /predict: one prediction with a brush region per object; none where nothing was drawn.

    Raises:
        Refused: 400, the body, the picture, the labeling configuration or a prompt cannot be used; 413.
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
    """The body of a refusal."""
    return {"status": status, "detail": message}


def _prompt_region(region: Region) -> tuple[Region, Value]:
    value = msgspec.convert(region.value, Value)
    if value.rotation:
        raise invalid_request("a rotated rectangle is no prompt: draw it upright")
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
    # Sums of percents may pass 100 by a rounding: a hundredth of a pixel is no corner outside.
    x1, y1 = corner_xy[0] + size_wh[0], corner_xy[1] + size_wh[1]
    x1 = width if width < x1 < width + 0.01 else x1
    y1 = height if height < y1 < height + 0.01 else y1
    return box_between(corner_xy, (x1, y1), size_hw)


PROMPTS = ("keypointlabels", "rectanglelabels")


def _names(label_config: str, to_name: str) -> tuple[str, str]:
    """The name of the brush over an image, and the key of the image in a task's data."""
    if "<!" in label_config.replace("<!--", ""):  # entities can be nested until they fill the memory
        raise invalid_request("the labeling configuration has a DOCTYPE: take it out")
    try:
        root = ElementTree.fromstring(label_config)
    except ElementTree.ParseError as error:
        raise invalid_request(f"the labeling configuration is no XML: {error}") from error
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
