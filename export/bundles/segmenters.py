"""The segmenter's half of an export: one function per kind of checkpoint writes segmenter.onnx."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from maskrt.export.architectures.kinds import SEGMENTER_ARCHITECTURES, architecture_of, load_architecture
from maskrt.export.architectures.packaged import PACKAGE
from maskrt.export.bundles.given_onnx import take_given
from maskrt.export.bundles.onnx_answer import NO_OPTIONS, OnnxOptions
from maskrt.export.graph_tools.graph import MAX_IMAGES, OneByOne, export_graph
from maskrt.export.graphs.two_logits import TwoLogits
from maskrt.runtime.bundle.manifest import Parity
from maskrt.runtime.engines.session import first_line
from maskrt.runtime.errors import InputError
from maskrt.runtime.types import Report

ONNX = "onnx"


def accept_any(_: int) -> None:
    """Accept any number of classes."""


class Writer(Protocol):
    """Writes a segmenter's graph; returns the number of classes, and parity where PyTorch made the graph.

    accept: gets the number of classes before the graph is made, and raises where that does not do.
    """

    def __call__(
        self,
        checkpoint: Path,
        path: Path,
        input_hw: tuple[int, int],
        report: Report,
        /,
        options: OnnxOptions = NO_OPTIONS,
        accept: Callable[[int], None] = accept_any,
    ) -> tuple[int, Parity | None]: ...


def write_network(
    kind: str,
    checkpoint: Path,
    path: Path,
    input_hw: tuple[int, int],
    report: Report,
    options: OnnxOptions = NO_OPTIONS,
    accept: Callable[[int], None] = accept_any,
) -> tuple[int, Parity]:
    """Export a PyTorch network at a fixed input size, from image float32 [B, 3, H, W] to logits [B, C, H, W].

    A network with one logit has two classes, see TwoLogits.

    Raises:
        InputError: the input size does not suit the network, or the checkpoint does not fit.
        ExportError: the graph differs from PyTorch.
    """
    if options != NO_OPTIONS:
        raise InputError(f"output, activation and bgr say what an ONNX file does: leave them out for {kind}")
    multiple = architecture_of(kind).multiple
    if min(input_hw) < 1 or any(side % multiple for side in input_hw):
        raise InputError(f"input size {input_hw[0]}x{input_hw[1]}: {kind} needs multiples of {multiple}")
    model = load_architecture(kind, checkpoint, report)
    random = torch.Generator().manual_seed(0)
    one, two, three = (torch.randn(count, 3, *input_hw, generator=random) for count in (1, 2, 3))
    try:
        with torch.no_grad():
            _, classes, *found_hw = model(one).shape
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise InputError(f"{kind} does not run on {input_hw[0]}x{input_hw[1]}: {first_line(error)}") from error
    if tuple(found_hw) != input_hw:
        raise InputError(f"{kind} returns maps of {found_hw} for a picture of {list(input_hw)}: maskrt needs its size")
    if classes == 1:
        model, classes = TwoLogits(model), 2
        report(f"{path.name}: one logit becomes two classes, the second by sigmoid")
    accept(classes)
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
    return classes, parity


def copy_onnx(
    checkpoint: Path,
    path: Path,
    input_hw: tuple[int, int],
    report: Report,
    options: OnnxOptions = NO_OPTIONS,
    accept: Callable[[int], None] = accept_any,
) -> tuple[int, None]:
    """Take an ONNX file, after runs on pictures; see take_given.

    Where the first axis is fixed at 1, the graph gets one picture at a time. Where it is open, several at a time must
    get the answer that each gets alone.

    Raises:
        InputError, ExportError: see take_given.
    """
    return take_given(checkpoint, path, input_hw, options, report, accept=accept).logits, None


SEGMENTERS: dict[str, Writer] = {
    **{kind: partial(write_network, kind) for kind in SEGMENTER_ARCHITECTURES},
    ONNX: copy_onnx,
}
# SEGMENTERS' names, and the one whose kinds the package knows.
NAMES = (*SEGMENTERS, PACKAGE)


def writer_of(kind: str) -> Writer:
    """Return the writer of a kind of segmenter, smp:ARCH/ENCODER included."""
    return SEGMENTERS[kind] if kind in SEGMENTERS else partial(write_network, kind)
