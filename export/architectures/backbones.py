"""ResNet and MobileNetV2 as feature extractors, with torchvision's state-dict keys.

Written here because torchvision has no build for the pinned CPU PyTorch. `dilations` says how the last stages keep the
resolution that a segmentation decoder needs: segmentation_models_pytorch and torchvision do it differently.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

RESNET_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
RESNET_STEM = 64
# Sandler et al. 2018, table 2: output channels, repeats and stride of each bottleneck stage.
MOBILENET_STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
MOBILENET_STEM, MOBILENET_LAST, MOBILENET_EXPANSION = 32, 1280, 6

Dilations = tuple[tuple[int, int], tuple[int, int]]


def initialise(module: nn.Module) -> None:
    """Give every convolution He's initial weights, in place, for training from nothing."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a residual; the stride sits on the 3x3 (ResNet "v1.5")."""

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, in, H, W] to [N, 4 * width, H / stride, W / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        activated: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return activated


class ResNet(nn.Module):
    """ResNet-50 or -101, of any width, without its classifier.

    Args:
        blocks: bottlenecks per stage, as in RESNET_BLOCKS; a stage of 0 is empty.
        dilations: (first block, other blocks) of layer3 and of layer4; a stage has stride 2 only if its pair is (1, 1).
        stem: channels of the first convolution; every other count follows from it.
        channels: of the picture; a refiner's has the mask as a fourth.
    """

    def __init__(self, blocks: Sequence[int], dilations: Dilations, stem: int = RESNET_STEM, channels: int = 3) -> None:
        super().__init__()
        self.low_channels, self.out_channels = 4 * stem, 32 * stem
        self.conv1 = nn.Conv2d(channels, stem, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = self._stage(stem, stem, blocks[0], 1, (1, 1))
        self.layer2 = self._stage(4 * stem, 2 * stem, blocks[1], 2, (1, 1))
        self.layer3 = self._stage(8 * stem, 4 * stem, blocks[2], 2 if dilations[0] == (1, 1) else 1, dilations[0])
        self.layer4 = self._stage(16 * stem, 8 * stem, blocks[3], 2 if dilations[1] == (1, 1) else 1, dilations[1])

    @staticmethod
    def _stage(in_channels: int, width: int, count: int, stride: int, dilation: tuple[int, int]) -> nn.Sequential:
        first = (Bottleneck(in_channels, width, stride, dilation[0], project=True) for _ in range(min(count, 1)))
        return nn.Sequential(
            *first, *(Bottleneck(4 * width, width, 1, dilation[1], project=False) for _ in range(count - 1))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map float32 [N, 3, H, W] to the features at stride 4, [N, 4 * stem, H/4, W/4], and at the last stage."""
        low = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return low, self.layer4(self.layer3(self.layer2(low)))


def divisible_by_8(channels: float) -> int:
    """Round channels to a multiple of 8, never more than 10% down. Source: torchvision's _make_divisible."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def mobilenet_channels(width_mult: float = 1.0) -> tuple[int, ...]:
    """Return the nine channel counts of MobileNetV2: stem, seven stages, last. Source: torchvision's MobileNetV2."""
    stages = (divisible_by_8(channels * width_mult) for channels, _, _ in MOBILENET_STAGES)
    return (
        divisible_by_8(MOBILENET_STEM * width_mult),
        *stages,
        divisible_by_8(MOBILENET_LAST * max(1.0, width_mult)),
    )


def _conv_bn_relu6(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Module:
    padding = kernel // 2 * dilation
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expansion, depthwise 3x3 and projection, with a residual where the shape allows it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, dilation: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_conv_bn_relu6(inputs, hidden, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            _conv_bn_relu6(hidden, hidden, 3, stride, hidden, dilation),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self._residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        projected: Tensor = self.conv(x)
        return x + projected if self._residual else projected


class MobileNetV2(nn.Module):
    """MobileNetV2 without its classifier, at output stride 16.

    Args:
        channels: the nine counts of mobilenet_channels().
    """

    LOW, DILATED_FROM = 3, 14  # features[3] ends stride 4; features[14:] is the part that would have stride 32

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(3, channels[0], 3, stride=2)]
        inputs = channels[0]
        for outputs, (_, repeats, stage_stride) in zip(channels[1:8], MOBILENET_STAGES, strict=True):
            for block in range(repeats):
                dilated = len(layers) >= self.DILATED_FROM
                stride = stage_stride if block == 0 and not dilated else 1
                expansion = 1 if len(layers) == 1 else MOBILENET_EXPANSION
                layers.append(InvertedResidual(inputs, outputs, stride, expansion, dilation=2 if dilated else 1))
                inputs = outputs
        layers.append(_conv_bn_relu6(inputs, channels[8], 1))
        self.features = nn.Sequential(*layers)
        self.low_channels, self.out_channels = channels[2], channels[8]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map float32 [N, 3, H, W] to the features at stride 4 and at stride 16."""
        low = torch.empty(0)
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index == self.LOW:
                low = x
        return low, x
