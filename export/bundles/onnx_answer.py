"""Find out on a picture what somebody else's ONNX segmenter returns: which output, laid out how, and of what."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor
from torch.nn import functional

from maskrt.export.graph_tools.adapt import producer
from maskrt.runtime.errors import InputError

Activation = Literal["logits", "sigmoid", "softmax", "none"]
Answers = dict[str, NDArray[Any]]  # output -> its value for one picture
SUM = 1e-3  # how far from 1 the sum of probabilities may be: float16 rounds 20 classes to that
LEAST_SIDE = 8  # of a map that is smaller than the picture: below it, a number of features may look like one


class OnnxOptions(NamedTuple):
    """The facts that only the exporter knows of an ONNX file.

    output: name of the value to take, of the graph's outputs or inside it. activation: what the model ends with: logits
    (nothing), sigmoid or softmax; none: nothing needs to be applied, the values are probabilities whatever made them;
    None: as the graph's last node says. bgr: it takes the channels in the order blue, green, red. upsample: its maps
    are smaller than the picture, and are resized to it bilinearly, with half-pixel centres.
    """

    output: str | None = None
    activation: Activation | None = None
    bgr: bool = False
    upsample: bool = False


NO_OPTIONS = OnnxOptions()


@dataclass(frozen=True)
class Answer:
    """One output. channels_last: its classes are the last axis; stride: how many times smaller than the picture it is.

    maps: the number of classes that it has values of; probable: they are probabilities, not logits; value: what it
    returned for the picture, in any type, float [1, maps, h, w], [1, h, w, maps] or [1, h, w].
    """

    name: str
    channels_last: bool
    stride: int
    maps: int
    probable: bool
    value: NDArray[Any]

    def probabilities(self) -> Tensor:
        """Return the probabilities that the value means, float32 [1, classes, H, W]; one map is the second class's."""
        maps = torch.from_numpy(self.value.astype(np.float32))
        maps = maps[:, None] if maps.ndim == 3 else maps.permute(0, 3, 1, 2) if self.channels_last else maps
        if self.stride > 1:
            maps = functional.interpolate(maps, scale_factor=self.stride, mode="bilinear", align_corners=False)
        if self.maps > 1:
            return maps if self.probable else maps.softmax(1)
        second = maps if self.probable else maps.sigmoid()
        return torch.cat([1 - second, second], 1)


class _Layout(NamedTuple):
    channels_last: bool
    stride: int
    maps: int


def answer_of(
    checkpoint: Path, model: ModelProto, answers: Answers, input_hw: tuple[int, int], last: bool, options: OnnxOptions
) -> Answer:
    """Return the output to take. last: the channels of the input are its last axis.

    Raises:
        InputError: no output is a map of the picture, several are, or its values are not what they are said to be.
    """
    name = _chosen(checkpoint, answers, input_hw, last)
    raw = answers[name]
    layout = _layout(checkpoint, model, name, raw, input_hw, last)
    if layout.stride > 1 and not options.upsample:
        raise InputError(
            f"{checkpoint} returns {raw.dtype} {list(raw.shape)}, expected {_expected(input_hw)}: resize them in the "
            f"model as in training, or give --upsample, which resizes maps of 1/{layout.stride} bilinearly"
        )
    probable = _is_probable(checkpoint, model, name, raw, layout, options.activation)
    return Answer(name, layout.channels_last, layout.stride, layout.maps, probable, raw)


def _chosen(checkpoint: Path, answers: Answers, input_hw: tuple[int, int], last: bool) -> str:
    """Return the output to take: the only one, or the first if it alone has the picture's size."""
    first = next(iter(answers))
    whole = [name for name, value in answers.items() if (found := _found(value, input_hw, last)) and found.stride == 1]
    if len(answers) == 1 or whole == [first]:
        return first
    shapes = ", ".join(f"{name} {value.dtype} {list(value.shape)}" for name, value in answers.items())
    raise InputError(f"{checkpoint} has several outputs: {shapes}: say which one with --output NAME")


def _found(value: NDArray[Any], input_hw: tuple[int, int], last: bool) -> _Layout | None:
    """Return an output's layout, as the input's where both fit; None: it is no map of the picture."""
    shape = value.shape
    if len(shape) == 3 and _stride(shape[1:], input_hw):
        return _Layout(False, _stride(shape[1:], input_hw), 1)
    if len(shape) != 4:
        return None
    places = {True: (shape[1:3], shape[3]), False: (shape[2:], shape[1])}
    for channels_last in (last, not last):
        size_hw, channels = places[channels_last]
        if stride := _stride(size_hw, input_hw):
            return _Layout(channels_last, stride, channels)
    return None


def _stride(size_hw: tuple[int, ...], input_hw: tuple[int, int]) -> int:
    """Return how many times smaller than the picture a map is; 0: it is not, by a whole number."""
    if min(size_hw) < 1 or (min(size_hw) < LEAST_SIDE and size_hw != input_hw):
        return 0
    factors = {side // size if side % size == 0 else 0 for side, size in zip(input_hw, size_hw, strict=True)}
    return factors.pop() if len(factors) == 1 else 0


def _layout(
    checkpoint: Path, model: ModelProto, output: str, raw: NDArray[Any], input_hw: tuple[int, int], last: bool
) -> _Layout:
    found = _found(raw, input_hw, last)
    if found is not None and np.issubdtype(raw.dtype, np.floating) and raw.shape[0] == 1:
        return found
    maker = producer(model.graph, output)
    if found is not None and maker is not None and maker.op_type == "ArgMax":
        raise InputError(
            f"{checkpoint} returns labels, {raw.dtype} {list(raw.shape)}, where maskrt needs the logits: "
            f"give --output {maker.input[0]}, of which they are made"
        )
    what = "labels or integers, " if not np.issubdtype(raw.dtype, np.floating) else ""
    raise InputError(
        f"{checkpoint} returns {what}{raw.dtype} {list(raw.shape)}, expected {_expected(input_hw)}: export the model "
        "without what comes after them, or name them "
        "with --output"
    )


def _expected(input_hw: tuple[int, int]) -> str:
    return f"float32 [1, C, {input_hw[0]}, {input_hw[1]}] logits"


def _is_probable(
    checkpoint: Path, model: ModelProto, output: str, raw: NDArray[Any], layout: _Layout, said: Activation | None
) -> bool:
    """Return whether values are probabilities, as it was said or as the last node shows, if they can be on a picture.

    Raises:
        InputError: they cannot be what they are said to be, or nothing was said and they could be either.
    """
    if said is not None and said not in get_args(Activation):
        raise InputError(f"unknown activation {said!r}; known: {', '.join(get_args(Activation))}")
    maker = producer(model.graph, output)
    shown = None if maker is None else {"Sigmoid": "sigmoid", "Softmax": "softmax"}.get(maker.op_type)
    activation = said or shown or "logits"
    low, high = float(raw.min()), float(raw.max())
    inside = low >= 0 and high <= 1
    values = f"{checkpoint} returns values from {low:.3g} to {high:.3g} on a picture"
    if activation == "logits":
        if inside and said is None:
            raise InputError(
                f"{values}, which could be probabilities: say with --activation sigmoid, softmax or logits what the "
                "model ends with"
            )
        return False
    if not inside:
        raise InputError(f"{values}, and probabilities lie from 0 to 1: give --activation logits")
    if layout.maps == 1:
        if activation == "softmax":
            raise InputError(f"{checkpoint} returns one map, whose softmax is 1 everywhere: give --activation sigmoid")
        return True
    sums = raw.sum(axis=3 if layout.channels_last else 1, dtype=np.float64)
    if activation == "sigmoid" or np.abs(sums - 1).max() > SUM:
        raise InputError(
            f"{checkpoint} returns {layout.maps} maps whose probabilities sum to {sums.min():.3g} to {sums.max():.3g}: "
            "maskrt's classes exclude each other, and their probabilities sum to 1, as softmax's do: export one map, "
            "or a model that ends with softmax"
        )
    return True
