"""KIND:FILE, the name of every checkpoint, and the architectures behind the kinds."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from maskrt.export.architectures.backbones import RESNET_BLOCKS
from maskrt.export.architectures.deeplab import ENCODERS, deeplabv3plus_for
from maskrt.export.architectures.networks import Architecture, load_network
from maskrt.export.architectures.packaged import PACKAGE, packaged
from maskrt.export.architectures.sam import SAM_CONFIGS, SamConfig, build_sam
from maskrt.export.architectures.torchvision_deeplab import torchvision_deeplabv3_for
from maskrt.export.architectures.unet import unet_for
from maskrt.runtime.errors import InputError
from maskrt.runtime.types import Report

SEGMENTER_ARCHITECTURES = {
    **{
        f"deeplabv3plus_{name}": Architecture(
            partial(deeplabv3plus_for, name), anchor="segmentation_head.0.weight", multiple=16
        )
        for name in ENCODERS
    },
    **{
        f"torchvision_deeplabv3_{name}": Architecture(
            partial(torchvision_deeplabv3_for, name), anchor="classifier.4.weight"
        )
        for name in RESNET_BLOCKS
    },
}


def sam_architecture(config: SamConfig) -> Architecture:
    """Return the architecture of a SAM of these sizes."""

    def build(_: Mapping[str, Tensor]) -> nn.Module:
        sam: nn.Module = build_sam(config)
        return sam

    return Architecture(build, anchor="mask_decoder.iou_token.weight")


UNET = Architecture(unet_for, anchor="final.weight")
# Every kind whose keys tell it apart: an error suggests one when a checkpoint was given under the wrong kind.
KNOWN: dict[str, Architecture] = {
    **SEGMENTER_ARCHITECTURES,
    **{kind: sam_architecture(config) for kind, config in SAM_CONFIGS.items()},
    "unet": UNET,
}


def split_kind(text: str, kinds: Mapping[str, object], what: str) -> tuple[str, Path]:
    """Return KIND and FILE of "KIND:FILE"; of "smp:ARCH/ENCODER:FILE" the kind is smp:ARCH/ENCODER.

    Raises:
        InputError: there is no colon or no file name, or the kind is not in `kinds`.
    """
    kind, colon, file = text.partition(":")
    if not colon or not file:
        raise InputError(f"{what} {text!r} is not KIND:FILE; kinds: {', '.join(kinds)}")
    if kind not in kinds:
        raise InputError(f"unknown {what} kind {kind!r}; known: {', '.join(kinds)}")
    if kind == PACKAGE:
        model, colon, file = file.partition(":")
        if not colon or not file or model.count("/") != 1:
            raise InputError(f"{what} {text!r} is not {PACKAGE}:ARCH/ENCODER:FILE, such as smp:Unet/resnet34:best.pth")
        kind = f"{PACKAGE}:{model}"
    return kind, Path(file)


def architecture_of(kind: str) -> Architecture:
    """Return a segmenter's architecture; that of smp:ARCH/ENCODER is made by the package segmentation_models_pytorch.

    Raises:
        InputError: that package is not installed, or knows no such model.
    """
    name, _, model = kind.partition(":")
    return packaged(model) if name == PACKAGE else SEGMENTER_ARCHITECTURES[kind]


def load_architecture(kind: str, file: Path, report: Report = lambda _: None) -> nn.Module:
    """Load a segmenter with a checkpoint's weights, in evaluation mode. It maps [N, 3, H, W] to logits [N, C, H, W].

    Raises:
        CheckpointError: see load_network.
    """
    return load_network(file, kind, architecture_of(kind), KNOWN, report)
