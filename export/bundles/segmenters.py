"""The segmenter's half of an export: one function per kind of checkpoint writes segmenter.onnx."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from maskrt.export.architectures.kinds import SEGMENTER_ARCHITECTURES, load_architecture
from maskrt.export.graph_tools.graph import MAX_IMAGES, TOLERANCE, OneByOne, export_graph, output_shape
from maskrt.runtime.bundle.bundle import MAX_MODEL_BYTES
from maskrt.runtime.bundle.manifest import Parity
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.session import Session
from maskrt.runtime.errors import ExportError, InputError, NetworkError
from maskrt.runtime.types import Report

# checkpoint, ONNX file to write, (height, width), report -> number of classes, and parity where PyTorch made the graph
Writer = Callable[[Path, Path, tuple[int, int], Report], tuple[int, Parity | None]]


def write_network(
    kind: str, checkpoint: Path, path: Path, input_hw: tuple[int, int], report: Report
) -> tuple[int, Parity]:
    """Export one of our architectures at a fixed input size, from image float32 [B, 3, H, W] to logits [B, C, H, W].

    Raises:
        InputError: the input size does not suit the network, or the checkpoint does not fit.
        ExportError: the graph differs from PyTorch.
    """
    multiple = SEGMENTER_ARCHITECTURES[kind].multiple
    if min(input_hw) < 1 or any(side % multiple for side in input_hw):
        raise InputError(f"input size {input_hw[0]}x{input_hw[1]}: {kind} needs multiples of {multiple}")
    model = load_architecture(kind, checkpoint)
    random = torch.Generator().manual_seed(0)
    one, two, three = (torch.randn(count, 3, *input_hw, generator=random) for count in (1, 2, 3))
    parity = export_graph(
        model,
        (two,),
        path,
        inputs=("image",),
        outputs=("logits",),
        dynamic={"image": {0: ("batch", MAX_IMAGES)}},
        cases=((one,), (three,)),
        report=report,
        reference=OneByOne(model),
    )
    _, classes, *_ = output_shape(path, "logits")
    if classes is None:
        raise ExportError(
            f"{path.name}: the number of classes is not fixed in the graph: report this with the checkpoint's kind"
        )
    return classes, parity


def copy_onnx(checkpoint: Path, path: Path, input_hw: tuple[int, int], report: Report) -> tuple[int, None]:
    """Take an ONNX file as it is, after one run: it has one input [1, 3, H, W] and one output [1, C, H, W] of logits.

    Where the first axis is fixed at 1, the graph gets one picture at a time. Where it is open, several at a time must
    get the answer that each gets alone.

    Raises:
        InputError: the file is no ONNX file, needs other files, or has other inputs or outputs.
    """
    copy_checked(checkpoint, path)
    classes = _run_once(checkpoint, path, input_hw)
    report(f"{path.name}: {checkpoint.name} as it is, {classes} classes")
    return classes, None


def copy_checked(checkpoint: Path, path: Path) -> None:
    """Copy somebody else's ONNX file, if it is a valid model that needs no other file.

    Raises:
        InputError: it is not one, or it is too large.
    """
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint} does not exist or is not a file: check the path")
    if checkpoint.stat().st_size > MAX_MODEL_BYTES:
        raise InputError(f"{checkpoint} is larger than {MAX_MODEL_BYTES} bytes, the largest that maskrt takes")
    shutil.copyfile(checkpoint, path)  # first copied, then checked: the checked file is the kept one
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, or whatever its build raises
        raise InputError(f"{checkpoint} is not an ONNX file or is truncated: export it again") from error
    if _has_external_data(model):
        raise InputError(
            f"{checkpoint} keeps weights in other files: save it as one with onnx.save(onnx.load(FILE), NEW)"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{checkpoint} is not a valid ONNX model: {reason}") from error


SEGMENTERS: dict[str, Writer] = {
    **{kind: partial(write_network, kind) for kind in SEGMENTER_ARCHITECTURES},
    "onnx": copy_onnx,
}


def _has_external_data(model: onnx.ModelProto) -> bool:
    """Return whether any tensor, in any subgraph, function or attribute, names a file."""
    external = onnx.TensorProto.DataLocation.Value("EXTERNAL")

    def tensors_of(message: Any) -> Any:
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            # A repeated field iterates over its messages; a single one is the message itself.
            for child in value if hasattr(value, "__len__") else (value,):
                if isinstance(child, onnx.TensorProto):
                    yield child
                else:
                    yield from tensors_of(child)

    return any(tensor.data_location == external or tensor.external_data for tensor in tensors_of(model))


def _run_once(checkpoint: Path, path: Path, input_hw: tuple[int, int]) -> int:
    expected_in, expected_out = [1, 3, *input_hw], f"float32 [1, C, {input_hw[0]}, {input_hw[1]}]"
    with open_session(path) as session:
        if len(session.inputs) != 1 or len(session.outputs) != 1:
            found = f"inputs {list(session.inputs)} and outputs {list(session.outputs)}"
            raise InputError(f"{checkpoint} has {found}; a segmenter has one of each")
        ((name, (kind, shape)),) = session.inputs.items()
        fits = len(shape) == 4 and all(found in (None, want) for found, want in zip(shape, expected_in, strict=True))
        if kind != "tensor(float)" or not fits:
            raise InputError(
                f"{checkpoint} takes {kind} {list(shape)}, expected tensor(float) {expected_in}: export it again for "
                "that, or give the input size it was made for"
            )
        images = np.random.default_rng(0).standard_normal((2, *expected_in[1:]), dtype=np.float32)
        try:
            (logits,) = session.run({name: images[:1]}).values()
        except NetworkError as error:
            raise InputError(f"{checkpoint} does not run on {expected_in}: {error}") from error
        if logits.dtype != np.float32 or logits.ndim != 4 or (logits.shape[0], *logits.shape[2:]) != (1, *input_hw):
            found = f"{logits.dtype} {list(logits.shape)}"
            raise InputError(f"{checkpoint} returns {found}, expected {expected_out} logits")
        if logits.shape[1] < 2:
            raise InputError(f"{checkpoint} returns {logits.shape[1]} class, expected {expected_out} with at least 2")
        if shape[0] is None:
            check_batch(checkpoint, session, name, images)
    return int(logits.shape[1])


def check_batch(checkpoint: Path, session: Session, name: str, images: NDArray[np.float32]) -> None:
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
