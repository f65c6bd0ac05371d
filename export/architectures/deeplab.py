"""DeepLabV3+ with the state-dict keys of segmentation_models_pytorch's `DeepLabV3Plus`, in plain PyTorch.

Source: Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution"; the layout of keys, the output stride of
16 and the align_corners of each resize are segmentation_models_pytorch's.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.architectures.backbones import (
    MOBILENET_STAGES,
    RESNET_BLOCKS,
    RESNET_STEM,
    MobileNetV2,
    ResNet,
    divisible_by_8,
    initialise,
    mobilenet_channels,
)
from maskrt.runtime.errors import CheckpointError, InputError

ATROUS_RATES = (12, 24, 36)
LOW_LEVEL_CHANNELS = 48
ENCODERS = (*RESNET_BLOCKS, "mobilenet_v2")
SMP_DILATIONS = ((1, 1), (2, 2))  # every block of layer4 dilated, the first one too


def _separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False))


def _dense(inputs: int, outputs: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)


def _activated(conv: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


class AsppPooling(nn.Sequential):
    """The image-level feature of ASPP: mean over the image, 1x1 convolution, spread over the grid again."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, inputs, H, W] to [N, outputs, H, W]."""
        # Upstream resizes the 1x1 map bilinearly, which is this constant; Expand spares the graph a Resize.
        pooled = x
        for layer in self:
            pooled = layer(pooled)
        return pooled.expand(-1, -1, x.shape[2], x.shape[3])


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: one 1x1, three dilated 3x3, one image-level branch, projected together."""

    def __init__(self, inputs: int, outputs: int, separable: bool) -> None:
        super().__init__()
        conv = _separable if separable else _dense
        branches = [_activated(nn.Conv2d(inputs, outputs, 1, bias=False), outputs)]
        branches += [_activated(conv(inputs, outputs, rate), outputs) for rate in ATROUS_RATES]
        branches += [AsppPooling(inputs, outputs)]
        self.convs = nn.ModuleList(branches)
        merge = nn.Conv2d(len(branches) * outputs, outputs, 1, bias=False)
        self.project = nn.Sequential(merge, nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, inputs, H, W] to [N, outputs, H, W]."""
        pooled: Tensor = self.project(torch.cat([branch(x) for branch in self.convs], dim=1))
        return pooled


class DeepLabV3PlusDecoder(nn.Module):
    """ASPP at stride 16, joined with reduced low-level features at stride 4."""

    def __init__(self, low_channels: int, high_channels: int, channels: int) -> None:
        super().__init__()
        self.aspp = nn.Sequential(
            Aspp(high_channels, channels, separable=True),
            _separable(channels, channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.block1 = _activated(nn.Conv2d(low_channels, LOW_LEVEL_CHANNELS, 1, bias=False), LOW_LEVEL_CHANNELS)
        self.block2 = _activated(_separable(LOW_LEVEL_CHANNELS + channels, channels), channels)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Map [N, low, H/4, W/4] and [N, high, H/16, W/16] to [N, channels, H/4, W/4]."""
        coarse = functional.interpolate(self.aspp(high), scale_factor=4, mode="bilinear", align_corners=True)
        features: Tensor = self.block2(torch.cat([coarse, self.block1(low)], dim=1))
        return features


class DeepLabV3Plus(nn.Module):
    """Logits at the input's resolution; height and width must be multiples of 16."""

    def __init__(self, encoder: ResNet | MobileNetV2, classes: int, decoder_channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = DeepLabV3PlusDecoder(encoder.low_channels, encoder.out_channels, decoder_channels)
        self.segmentation_head = nn.Sequential(
            nn.Conv2d(decoder_channels, classes, 1),
            nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised float32 [N, 3, H, W] to logits float32 [N, classes, H, W]."""
        logits: Tensor = self.segmentation_head(self.decoder(*self.encoder(x)))
        return logits


def build_deeplabv3plus(
    encoder: str, classes: int, decoder_channels: int = 256, width_mult: float = 1.0
) -> DeepLabV3Plus:
    """Build a DeepLabV3+ with random weights, in training mode.

    Args:
        encoder: "resnet50", "resnet101" or "mobilenet_v2".
        width_mult: scales the encoder's channels, rounded to multiples of 8 as torchvision does for MobileNetV2.

    Raises:
        InputError: the encoder is unknown.
    """
    _check_known(encoder)
    if encoder == "mobilenet_v2":
        model = _with_mobilenet(mobilenet_channels(width_mult), classes, decoder_channels)
    else:
        model = _with_resnet(encoder, divisible_by_8(RESNET_STEM * width_mult), classes, decoder_channels)
    initialise(model)
    return model


def deeplabv3plus_for(encoder: str, state: Mapping[str, Tensor]) -> DeepLabV3Plus:
    """Build the DeepLabV3+ with the classes, decoder channels and encoder width of a state dict, to load it into.

    Raises:
        CheckpointError: the keys that give the sizes are missing, so this is not a DeepLabV3+ with that encoder.
        InputError: the encoder is unknown.
    """
    _check_known(encoder)
    try:
        classes, decoder_channels = state["segmentation_head.0.weight"].shape[:2]
        if encoder == "mobilenet_v2":
            return _with_mobilenet(_mobilenet_channels_of(state), classes, decoder_channels)
        return _with_resnet(encoder, int(state["encoder.conv1.weight"].shape[0]), classes, decoder_channels)
    except KeyError as error:
        raise CheckpointError(f"not a DeepLabV3+ with {encoder}: the checkpoint has no {error.args[0]}") from error


def _check_known(encoder: str) -> None:
    if encoder not in ENCODERS:
        raise InputError(f"unknown encoder {encoder!r}; known: {', '.join(ENCODERS)}")


def _with_mobilenet(channels: Sequence[int], classes: int, decoder_channels: int) -> DeepLabV3Plus:
    return DeepLabV3Plus(MobileNetV2(channels), classes, decoder_channels)


def _with_resnet(encoder: str, stem: int, classes: int, decoder_channels: int) -> DeepLabV3Plus:
    return DeepLabV3Plus(ResNet(RESNET_BLOCKS[encoder], SMP_DILATIONS, stem), classes, decoder_channels)


def _mobilenet_channels_of(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Read the nine channel counts from the last block of every stage."""
    counts = [state["encoder.features.0.0.weight"].shape[0]]
    index = 0
    for _, repeats, _ in MOBILENET_STAGES:
        index += repeats
        project = 1 if index == 1 else 2  # the first block has no expansion, so its projection comes one earlier
        counts.append(state[f"encoder.features.{index}.conv.{project}.weight"].shape[0])
    counts.append(state[f"encoder.features.{index + 1}.0.weight"].shape[0])
    return tuple(int(count) for count in counts)
