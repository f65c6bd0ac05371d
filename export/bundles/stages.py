"""The networks of a two-stage pipeline: one function per kind of checkpoint writes low.onnx or high.onnx."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from maskrt.export.architectures.kinds import KNOWN, UNET
from maskrt.export.architectures.networks import load_network
from maskrt.export.architectures.unet import MULTIPLE, UNet
from maskrt.export.bundles.given_onnx import take_given
from maskrt.export.bundles.onnx_answer import NO_OPTIONS, OnnxOptions
from maskrt.export.graph_tools.graph import MAX_IMAGES, export_graph
from maskrt.runtime.bundle.manifest import Parity
from maskrt.runtime.bundle.two_stage_spec import MAX_SIDE
from maskrt.runtime.types import Report


class Stage(NamedTuple):
    """A network that was read.

    channels: of its pictures; logits: per pixel; multiple: of its pictures' sides, 1 where they are fixed; write: puts
    its graph into the file, if it is not there yet; network: where PyTorch has it.
    """

    channels: int
    logits: int
    multiple: int
    write: Callable[[Report], Parity | None]
    network: nn.Module | None = None


# checkpoint, ONNX file to write, side of the square pictures that the stage gets, what is known of an ONNX file.
# Reading is fast, writing is slow.
Reader = Callable[[Path, Path, int, OnnxOptions], Stage]


def read_unet_stage(checkpoint: Path, path: Path, side: int, _: OnnxOptions = NO_OPTIONS) -> Stage:
    """Read a U-Net of any width; raise the errors of read_unet."""
    lines: list[str] = []
    network = read_unet(checkpoint, lines.append)

    def write(report: Report) -> Parity:
        _report(lines, report)
        return write_unet(network, path, side, report)

    return Stage(network.channels, network.classes, MULTIPLE, write, network)


def write_unet(network: UNet, path: Path, side: int, report: Report) -> Parity:
    """Export a U-Net for any number of pictures of any size, from float32 [B, channels, H, W] to logits.

    Raises:
        ExportError: the graph differs from PyTorch.
    """
    rows, columns = (torch.export.Dim(name, min=1, max=MAX_SIDE // MULTIPLE) for name in ("rows", "columns"))

    def case(count: int, rows: int, columns: int) -> tuple[torch.Tensor]:
        random = torch.Generator().manual_seed(count)
        return (torch.randn(count, network.channels, MULTIPLE * rows, MULTIPLE * columns, generator=random),)

    return export_graph(
        network,
        case(2, 2, 3),
        path,
        inputs=("image",),
        outputs=("logits",),
        dynamic={"image": {0: ("batch", MAX_IMAGES), 2: MULTIPLE * rows, 3: MULTIPLE * columns}},
        cases=(case(1, 1, 1), case(3, 4, 2), case(1, -(-side // MULTIPLE), -(-side // MULTIPLE))),
        report=report,
    )


def read_unet(checkpoint: Path, report: Report = lambda _: None) -> UNet:
    """Read the network of a checkpoint with the public code's keys, in evaluation mode.

    Raises:
        CheckpointError: the checkpoint is damaged, holds code, or is no U-Net of the two-stage document.
    """
    network = load_network(checkpoint, "unet", UNET, KNOWN, report)
    assert isinstance(network, UNet)
    return network


def take_onnx(checkpoint: Path, path: Path, side: int, options: OnnxOptions = NO_OPTIONS) -> Stage:
    """Take an ONNX file, after runs on pictures of the size that it gets; see take_given.

    Its pictures have 1 or 3 channels. B, H and W are dynamic, or B is fixed at 1, H and W at the size. Where B is
    dynamic, several pictures must get the answer that each gets alone.

    Raises:
        InputError, ExportError: see take_given.
    """
    lines: list[str] = []
    given = take_given(checkpoint, path, (side, side), options, lines.append, channels=(1, 3), two_logits=False)
    # Open sides get multiples of 32, which the document's U-Net needs.
    fixed = None not in given.shape[2:]
    return Stage(given.channels, given.logits, 1 if fixed else MULTIPLE, partial(_report, lines))


STAGES: dict[str, Reader] = {"unet": read_unet_stage, "onnx": take_onnx}


def _report(lines: list[str], report: Report) -> None:
    for line in lines:
        report(line)
