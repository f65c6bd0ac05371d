"""Label Studio's ML backend, which answers with brush masks for the clicks and boxes of a task.

Source: github.com/HumanSignal/label-studio-ml-backend (label_studio_ml/api.py, examples/segment_anything_model) and
Label Studio's own label_studio/ml, which sends the requests.
"""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.serve.brush_rle import encode_brush
from maskrt.runtime.serve.pictures import Pictures
from maskrt.runtime.serve.predictor import Box, Predictor, Prompt, box_between, check_counts, click_at, prompts_of
from maskrt.runtime.serve.refused import decoded, invalid_request

PROMPTS = ("keypointlabels", "rectanglelabels")  # types of points and of boxes
MOST_PROMPT_BYTES, MOST_CONFIG_LETTERS = 10_000, 200_000
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
    """A drawn region; `value` is a Value if `type` is the type of a prompt; others can have a million run lengths."""

    type: str
    value: msgspec.Raw
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

    data: dict[str, msgspec.Raw]


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
    decoded(body, SetupRequest)
    return {"model_version": model_version}


def webhook(body: bytes) -> tuple[int, dict[str, Any]]:
    """Answer POST /webhook with a status: events are accepted, but nothing is learnt from them."""
    event = decoded(body, WebhookRequest).action
    if event not in TRAIN_EVENTS:
        return 200, {"status": "Unknown event"}
    return 201, {"result": {}, "status": "ok"}


@dataclass(frozen=True)
class Asked:
    """A checked request: prompts on a picture, and the brush and the labels that the answer names."""

    url: str
    drawn: list[tuple[Region, Value]]
    from_name: str
    to_name: str
    labels: list[str]


async def predict(
    body: bytes,
    model_version: str,
    predictor: Predictor,
    pictures: Pictures,
    is_gone: Callable[[], Awaitable[bool]],
) -> dict[str, Any]:
    """Answer POST /predict: one prediction with a brush region per object, or none if nothing was drawn.

    Raises:
        Refused: 400, the body, the picture, the labeling configuration or a prompt cannot be used; 413, the picture is
            too large.
    """
    from starlette.concurrency import run_in_threadpool

    asked = await run_in_threadpool(_asked, body)
    if asked is None:
        return {"results": []}
    found = await predictor.draw(
        await run_in_threadpool(pictures.read, asked.url),
        lambda size_hw: _prompts(asked.drawn, size_hw),
        lambda mask: _brush(mask, asked) if mask.any() else None,
        is_gone,
    )
    regions = [region for region in found if region is not None]
    return {"results": [{"result": regions, "model_version": model_version}]}


def _asked(body: bytes) -> Asked | None:
    request = decoded(body, PredictRequest)
    context = request.params.context if request.params is not None else None
    regions = [region for region in (context.result if context else []) if region.type in PROMPTS]
    if not regions:
        return None
    check_counts(*(sum(region.type == kind for region in regions) for kind in PROMPTS))
    drawn = [_prompt_region(region) for region in regions]
    if len(request.tasks) != 1:
        raise invalid_request(f"{len(request.tasks)} tasks with one context: send one")
    last, value = drawn[-1]
    from_name, key = _names(request.label_config, last.to_name)
    missing = invalid_request(f"the task has no picture under {key[:100]!r}, as the labeling configuration names it")
    if key not in request.tasks[0].data:
        raise missing
    try:
        url = msgspec.json.decode(request.tasks[0].data[key], type=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # it is no text
        raise missing from error
    return Asked(url, drawn, from_name, last.to_name, value.keypointlabels or value.rectanglelabels)


def error(status: int, message: str) -> dict[str, Any]:
    """Return the body of a refusal."""
    return {"status": status, "detail": message}


def _prompt_region(region: Region) -> tuple[Region, Value]:
    value = decoded(region.value, Value, "$.params.context.result[...].value", MOST_PROMPT_BYTES)
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


def _names(label_config: str, to_name: str) -> tuple[str, str]:
    """Return the name of the brush over an image, and the image's key in a task's data."""
    if len(label_config) > MOST_CONFIG_LETTERS:
        raise invalid_request(
            f"the labeling configuration has {len(label_config)} letters: at most {MOST_CONFIG_LETTERS} are taken"
        )
    if "<!" in label_config.replace("<!--", ""):  # nested entities can fill the memory
        raise invalid_request("the labeling configuration has a DOCTYPE: remove it")
    try:
        root = ElementTree.fromstring(label_config)
    except ElementTree.ParseError as error:
        raise invalid_request(f"the labeling configuration is not XML: {error}") from error
    image = next((tag for tag in root.iter("Image") if tag.get("name") == to_name), None)
    brush = next((tag for tag in root.iter("BrushLabels") if to_name in tag.get("toName", "").split(",")), None)
    if image is None or not image.get("value", "").startswith("$"):
        raise invalid_request(f'the labeling configuration has no <Image name="{_shown(to_name)}" value="$...">')
    if brush is None or not brush.get("name"):
        raise invalid_request(f'the labeling configuration needs <BrushLabels name="..." toName="{_shown(to_name)}">')
    return brush.get("name", ""), image.get("value", "")[1:]


def _shown(name: str) -> str:
    return repr(name[:100])[1:-1]


def _brush(mask: NDArray[np.bool_], asked: Asked) -> dict[str, Any]:
    height, width = mask.shape
    return {
        "id": uuid.uuid4().hex[:10],
        "from_name": asked.from_name,
        "to_name": asked.to_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": asked.labels[:1]},
        "type": "brushlabels",
        "readonly": False,
    }
