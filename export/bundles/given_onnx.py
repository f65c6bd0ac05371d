"""Somebody else's ONNX segmenter, brought to maskrt's interface.

That is one input, float32 [B, channels, H, W], and one output of logits, float32 [B, classes, H, W], whose softmax are
the probabilities. A graph that has it already stays as it is, byte for byte.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from maskrt.export.bundles.onnx_answer import Answer, OnnxOptions, answer_of
from maskrt.export.graph_tools.adapt import (
    IMAGE,
    LOGITS,
    Chain,
    at_least_opset,
    declare,
    declare_outputs,
    keep_output,
    sort_nodes,
    surround,
)
from maskrt.export.graph_tools.graph import TOLERANCE
from maskrt.export.graph_tools.onnx_file import check_given, read_given
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.session import Session
from maskrt.runtime.errors import BundleError, ExportError, InputError, NetworkError
from maskrt.runtime.types import Report

Floats = NDArray[np.float32]
TYPES: dict[str, tuple[type, int]] = {
    "tensor(float)": (np.float32, TensorProto.FLOAT),
    "tensor(float16)": (np.float16, TensorProto.FLOAT16),
    "tensor(double)": (np.float64, TensorProto.DOUBLE),
}
# ONNX Runtime on a CPU keeps more than float16 between some nodes, and other ones where nodes are added: 6e-4 apart.
HALF_TOLERANCE = 5e-3
LEAST = 1e-7  # below it a probability counts as this, or its logarithm would not be finite; float16 holds it too


class Given(NamedTuple):
    """A graph that was taken. logits: its maps; shape: of its input [B, channels, H, W], None for an open axis."""

    channels: int
    logits: int
    shape: tuple[int | None, ...]


class _Input(NamedTuple):
    """The graph's input. shape: in its own order; last: that is [B, H, W, channels]."""

    name: str
    kind: str
    shape: tuple[int | None, ...]
    last: bool

    @property
    def planar(self) -> tuple[int | None, ...]:
        """The shape in the order [B, channels, H, W]."""
        return tuple(self.shape[axis] for axis in (0, 3, 1, 2)) if self.last else self.shape


def declared_hw(checkpoint: Path, channels: Collection[int] = (3,)) -> tuple[int, int] | None:
    """Return the height and width that an ONNX file is fixed to; None where one of them is open.

    Raises:
        InputError: it is no ONNX file.
    """
    _, model = read_given(checkpoint)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    dims = [value.type.tensor_type.shape.dim for value in inputs]
    if len(dims) != 1 or len(dims[0]) != 4:
        return None
    shape = tuple(dim.dim_value or None for dim in dims[0])
    _, _, height, width = _Input("", "", shape, _channels_last(shape, channels)).planar
    return None if height is None or width is None else (height, width)


def take_given(
    checkpoint: Path,
    path: Path,
    input_hw: tuple[int, int],
    options: OnnxOptions,
    report: Report,
    *,
    channels: Collection[int] = (3,),
    two_logits: bool = True,
    accept: Callable[[int], None] = lambda _: None,
) -> Given:
    """Write an ONNX file to `path` in maskrt's interface, after runs on pictures of the input's size.

    Args:
        channels: of pictures that may be fed. two_logits: a single logit x becomes the two logits 0 and x, whose
            softmax is 1 - sigmoid(x) and sigmoid(x).
        accept: gets the number of maps before the graph is written, and raises where that does not do.

    Raises:
        InputError: the file is no ONNX file, needs other files, or takes or returns what maskrt cannot use; the error
            says which option or export would help.
        ExportError: the graph in maskrt's interface answers otherwise than the file.
    """
    data, model = read_given(checkpoint)
    changed = _on(checkpoint, lambda: sort_nodes(model))
    if changed:
        report(f"{path.name}: the nodes of {checkpoint.name} were not in order of use: sorted")
    changed = declare_outputs(model) or changed
    check_given(checkpoint, model)
    if options.output is not None:
        wanted = options.output
        changed = _on(checkpoint, lambda: keep_output(model, wanted)) or changed
    path.write_bytes(model.SerializeToString() if changed else data)
    with _session(checkpoint, path) as session:
        takes = _input(checkpoint, session, input_hw, channels)
        depth = takes.planar[1] or max(channels)
        pictures = np.random.default_rng(0).standard_normal((2, depth, *input_hw), dtype=np.float32)
        answers = _run(checkpoint, session, {takes.name: _as_fed(pictures[:1], takes, options.bgr)})
    answer = answer_of(checkpoint, model, answers, input_hw, takes.last, options)
    if len(answers) > 1:
        changed = _on(checkpoint, lambda: keep_output(model, answer.name)) or changed
    doubled = answer.maps == 1 and (two_logits or answer.probable)
    logits = 2 if doubled else answer.maps
    accept(logits)
    plain = takes.kind == "tensor(float)" and not (takes.last or answer.channels_last or options.bgr)
    plain = plain and answer.value.dtype == np.float32 and answer.value.ndim == 4 and answer.stride == 1
    if not plain or doubled or answer.probable:
        model = _on(checkpoint, lambda: _adapted(model, takes, answer, options.bgr, doubled))
        changed = True
    if changed:
        check_given(checkpoint, model)
        onnx.save(model, path)
    with _session(checkpoint, path) as session:
        (name,) = session.inputs
        (found,) = _run(checkpoint, session, {name: pictures[:1]}).values()
        _compare(checkpoint, found, answer, (1, logits, *input_hw))
        if takes.shape[0] is None:
            check_batch(checkpoint, session, name, pictures)
    report(
        f"{path.name}: {checkpoint.name} {'as maskrt takes it' if changed else 'as it is'}, {_notes(answer, logits)}"
    )
    return Given(depth, logits, takes.planar)


def check_batch(checkpoint: Path, session: Session, name: str, images: Floats) -> None:
    """Refuse a graph whose batch axis is open but whose answer to two pictures is not its answer to each alone.

    Args:
        name: the input's; images: two pictures, float32 [2, channels, H, W].

    Raises:
        InputError: the answers differ.
    """
    try:
        each = np.concatenate([value for image in images for value in session.run({name: image[None]}).values()])
        (both,) = session.run({name: images}).values()
        fits = both.shape == each.shape and np.abs(both - each).max() <= TOLERANCE * np.abs(each).max()
        reason = "its answer to two pictures is not its answer to each alone"
    except NetworkError as error:
        fits, reason = False, f"it does not run on two pictures: {error}"
    if not fits:
        raise InputError(
            f"{checkpoint} leaves the first axis of {name} open, but {reason}: fix that axis at 1 "
            "(python -m onnxruntime.tools.make_dynamic_shape_fixed "
            f"--input_name {name} --input_shape 1,{images.shape[1]},H,W {checkpoint} NEW)"
        )


def _on(checkpoint: Path, change: Callable[[], Any]) -> Any:
    """Change a graph; an error names the file."""
    try:
        return change()
    except InputError as error:
        raise InputError(f"{checkpoint}: {error}") from error


def _session(checkpoint: Path, path: Path) -> Session:
    try:
        return open_session(path)
    except BundleError as error:  # it names the copy, which the user does not know
        raise BundleError(str(error).replace(path.name, str(checkpoint), 1)) from error


def _channels_last(shape: tuple[int | None, ...], channels: Collection[int]) -> bool:
    """Return whether only the last axis can be the channels."""
    return len(shape) == 4 and shape[1] not in channels and shape[3] in channels


def _input(checkpoint: Path, session: Session, input_hw: tuple[int, int], channels: Collection[int]) -> _Input:
    if len(session.inputs) != 1:
        raise InputError(f"{checkpoint} has inputs {list(session.inputs)}; a segmenter has one, the picture")
    if strange := [name for name, (kind, _) in session.outputs.items() if not kind.startswith("tensor(")]:
        raise InputError(
            f"{checkpoint} returns {strange[0]}, which is no tensor: export it with maps of the picture alone"
        )
    ((name, (kind, shape)),) = session.inputs.items()
    takes = _Input(name, kind, shape, _channels_last(shape, channels))
    wanted: list[tuple[int | None, ...]] = [(None, 1), (None, *channels), *((None, side) for side in input_hw)]
    fits = len(shape) == 4 and all(size in sizes for size, sizes in zip(takes.planar, wanted, strict=True))
    if kind not in TYPES or not fits:
        depth = " or ".join(str(count) for count in channels)
        raise InputError(
            f"{checkpoint} takes {kind} {list(shape)}, expected tensor(float) [1, {depth}, {input_hw[0]}, "
            f"{input_hw[1]}]: export it again for that, or give the input size it was made for"
        )
    return takes


def _as_fed(picture: Floats, takes: _Input, bgr: bool) -> NDArray[Any]:
    """Return a picture [1, channels, H, W] as the model takes it."""
    ordered = picture[:, ::-1] if bgr else picture
    planes = ordered.transpose(0, 2, 3, 1) if takes.last else ordered
    return np.ascontiguousarray(planes, dtype=TYPES[takes.kind][0])


def _run(checkpoint: Path, session: Session, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    try:
        return session.run(feeds)
    except NetworkError as error:
        (value,) = feeds.values()
        raise InputError(f"{checkpoint} does not run on {list(value.shape)}: {error}") from error


def _adapted(model: ModelProto, takes: _Input, answer: Answer, bgr: bool, doubled: bool) -> ModelProto:
    """Return a model with nodes before and behind it that turn maskrt's interface into its own."""
    unsqueezed = answer.value.ndim == 3
    model = at_least_opset(model, 13 if unsqueezed else 11)  # where Unsqueeze and Resize have today's form
    before = Chain(model)
    image = before.value = before.new(IMAGE)
    if bgr:
        before.add("Gather", image, before.constant(np.array([2, 1, 0], np.int64)), axis=1)
    if takes.last:
        before.add("Transpose", perm=[0, 2, 3, 1])
    if takes.kind != "tensor(float)":
        before.add("Cast", to=TYPES[takes.kind][1])
    behind = Chain(model, before)
    behind.value = model.graph.output[0].name
    if answer.value.dtype != np.float32:
        behind.add("Cast", to=TensorProto.FLOAT)
    if unsqueezed:
        behind.add("Unsqueeze", behind.value, behind.constant(np.array([1], np.int64)))
    elif answer.channels_last:
        behind.add("Transpose", perm=[0, 3, 1, 2])
    if answer.stride > 1:
        scales = behind.constant(np.array([1, 1, answer.stride, answer.stride], np.float32))
        mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        behind.add("Resize", behind.value, behind.constant(np.zeros(0, np.float32)), scales, **mode)
    maps = behind.value
    if answer.probable:
        least, one = (behind.constant(np.array(number, np.float32)) for number in (LEAST, 1))
        parts = [behind.add("Sub", one, maps), maps] if doubled else [maps]
        parts = [behind.add("Log", behind.add("Max", part, least)) for part in parts]
    elif doubled:
        parts = [behind.add("Sub", maps, maps), maps]
    if doubled:
        behind.add("Concat", *parts, axis=1)
    behind.add("Identity")
    logits = behind.nodes[-1].output[0] = behind.new(LOGITS)
    surround(model, before, takes.name, behind)
    batch, depth, *sides = takes.planar
    declare(model, image, logits, (batch, depth, *sides), (batch, 2 if doubled else answer.maps, *sides))
    return model


def _compare(checkpoint: Path, found: NDArray[Any], answer: Answer, expected: tuple[int, ...]) -> None:
    """Compare the written graph's answer with the file's, as probabilities.

    Raises:
        InputError: it has another shape. ExportError: it differs.
    """
    if found.shape != expected:
        raise InputError(f"{checkpoint} returns {list(found.shape)}, expected {list(expected)}: export it again")
    theirs, logits = answer.probabilities(), torch.from_numpy(found)
    ours = logits.softmax(1) if expected[1] > 1 else torch.cat([(-logits).sigmoid(), logits.sigmoid()], 1)
    difference = float((ours - theirs).abs().max())
    if not difference <= (HALF_TOLERANCE if answer.value.dtype == np.float16 else TOLERANCE):
        raise ExportError(
            f"{checkpoint}: as maskrt takes it, its probabilities differ by {difference:.1e}: report this"
        )


def _notes(answer: Answer, logits: int) -> str:
    notes = [f"{logits} classes" if logits > 1 else "1 logit"]
    if answer.maps == 1 and logits == 2:
        notes.append("the second one by sigmoid" if not answer.probable else "the second one by its one map")
    elif answer.probable:
        notes.append("by their probabilities")
    if answer.stride > 1:
        notes.append(f"resized from 1/{answer.stride} of the size bilinearly")
    return ", ".join(notes)
