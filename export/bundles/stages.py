"""The networks of a two-stage pipeline: one function per kind of checkpoint writes low.onnx or high.onnx."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from maskrt.export.architectures.kinds import KNOWN, UNET
from maskrt.export.architectures.networks import load_network
from maskrt.export.architectures.unet import MULTIPLE, UNet
from maskrt.export.bundles.segmenters import check_batch, copy_checked
from maskrt.export.graph_tools.graph import MAX_IMAGES, export_graph
from maskrt.runtime.bundle.manifest import Parity
from maskrt.runtime.bundle.two_stage_spec import MAX_SIDE
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.session import Array, Session
from maskrt.runtime.errors import InputError, NetworkError
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


# checkpoint, ONNX file to write, side of the square pictures that the stage gets. Reading is fast, writing is slow.
Reader = Callable[[Path, Path, int], Stage]


def read_unet_stage(checkpoint: Path, path: Path, side: int) -> Stage:
    """Read a U-Net of any width; raise the errors of read_unet."""
    lines: list[str] = []
    network = read_unet(checkpoint, lines.append)

    def write(report: Report) -> Parity:
        for line in lines:
            report(line)
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


def take_onnx(checkpoint: Path, path: Path, side: int) -> Stage:
    """Take an ONNX file as it is, after a run on pictures of the size that it gets.

    It has one input float32 [B, 1 or 3, H, W] and one output of logits, float32 [B, L, H, W]. B, H and W are dynamic,
    or B is fixed at 1, H and W at the size. Where B is dynamic, several pictures must get the answer that each gets
    alone.

    Raises:
        InputError: the file is no ONNX file, needs other files, has other inputs or outputs, or answers several
            pictures otherwise.
    """
    copy_checked(checkpoint, path)
    with open_session(path) as session:
        if len(session.inputs) != 1 or len(session.outputs) != 1:
            found = f"inputs {list(session.inputs)} and outputs {list(session.outputs)}"
            raise InputError(f"{checkpoint} has {found}; a segmenter has one of each")
        ((name, (kind, shape)),) = session.inputs.items()
        wanted = f"tensor(float) [B, 1 or 3, {side}, {side}], each but the second open or fixed, B to 1"
        if kind != "tensor(float)" or not _fits(shape, side):
            raise InputError(f"{checkpoint} takes {kind} {list(shape)}, expected {wanted}: export it again for that")
        channels = shape[1]
        assert channels is not None  # by _fits
        pictures = np.random.default_rng(0).standard_normal((2, channels, side, side), dtype=np.float32)
        logits = _run(checkpoint, session, name, pictures[:1])
        if shape[0] is None:
            check_batch(checkpoint, session, name, pictures)
        # Open sides get multiples of 32, which the document's U-Net needs.
        fixed = None not in shape[2:]
    line = f"{path.name}: {checkpoint.name} as it is, {logits.shape[1]} logits"
    return Stage(channels, int(logits.shape[1]), 1 if fixed else MULTIPLE, partial(_report, line))


STAGES: dict[str, Reader] = {"unet": read_unet_stage, "onnx": take_onnx}


def _report(line: str, report: Report) -> None:
    report(line)


def _fits(shape: tuple[int | None, ...], side: int) -> bool:
    return len(shape) == 4 and shape[0] in (None, 1) and shape[1] in (1, 3) and set(shape[2:]) <= {None, side}


def _run(checkpoint: Path, session: Session, name: str, pictures: Array) -> Array:
    try:
        (logits,) = session.run({name: pictures}).values()
    except NetworkError as error:
        raise InputError(f"{checkpoint} does not run on {list(pictures.shape)}: {error}") from error
    if logits.dtype != np.float32 or logits.ndim != 4 or logits.shape[2:] != pictures.shape[2:]:
        expected = f"float32 [1, L, {pictures.shape[2]}, {pictures.shape[3]}]"
        raise InputError(f"{checkpoint} returns {logits.dtype} {list(logits.shape)}, expected {expected} logits")
    return logits
