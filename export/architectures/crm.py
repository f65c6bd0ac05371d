"""CRM, the mask refiner, with the state-dict keys of its public checkpoints.

A ResNet reads a picture and its rough mask; features of three scales are fused at half the resolution; a small network
decodes any point of the plane from its four nearest features.

Source: Shen et al. 2022, "High Quality Segmentation for Ultra High-resolution Images", and its public code, whose order
of computation `CrmNet.forward` keeps: it defines every answer. maskrt.export.graphs.crm_graphs computes the same with
less work.
"""

from itertools import pairwise
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.architectures.backbones import RESNET_BLOCKS, ResNet, initialise
from maskrt.runtime.errors import InputError

PLACE = 6  # the pixel decoder's inputs besides the feature: relative place, place and cell, each y and x
EPSILON = 1e-6  # the original moves its queries by this off the boundary between two cells
MIN_AREA = 1e-9
SCALES = (0.125, 0.25, 0.5, 1.0)  # of the public code's cascade


class CrmConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The sizes of a CRM; the defaults are those of the public checkpoint.

    width: channels of the ResNet's stem, from which all others follow. blocks: bottlenecks per stage; no answer needs
    the last stage, so its count may be 0. hidden, layers: width and number of the pixel decoder's hidden layers.
    scales: of the picture, one for each stage of the cascade.
    """

    backbone: Literal["resnet"] = "resnet"
    width: int = 64
    blocks: tuple[int, int, int, int] = RESNET_BLOCKS["resnet50"]
    hidden: int = 32
    layers: int = 4
    scales: tuple[float, ...] = SCALES

    @property
    def fused(self) -> tuple[int, int, int]:
        """Channels that each of the three scales brings to the fusion."""
        return self.width, self.width, 2 * self.width

    @property
    def features(self) -> int:
        """Channels of the fused features."""
        return sum(self.fused)


class _ConvNormRelu(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.atrous_conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.relu(self.bn(self.atrous_conv(x)))
        return activated


class Fusion(nn.Module):
    """Joins three scales into one map at the finest. The public code's names count the full network's channels."""

    def __init__(self, config: CrmConfig) -> None:
        super().__init__()
        width, (fine, middle, coarse) = config.width, config.fused
        self.aspp1_128, self.bn1_128 = _ConvNormRelu(width, fine), nn.BatchNorm2d(fine)
        self.aspp1_256, self.bn1_256 = _ConvNormRelu(4 * width, middle), nn.BatchNorm2d(middle)
        self.aspp1_1024, self.bn1_1024 = _ConvNormRelu(16 * width, coarse), nn.BatchNorm2d(coarse)
        features = config.features
        self.dropout = nn.Dropout(0.5)
        self.last_conv = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1, bias=False), nn.BatchNorm2d(features), nn.ReLU(), self.dropout
        )

    def squeeze_fine(self, x: Tensor) -> Tensor:
        """Map the stem [B, width, h, w] to [B, fine, h, w]."""
        squeezed: Tensor = self.dropout(torch.relu(self.bn1_128(self.aspp1_128(x))))
        return squeezed

    def squeeze_middle(self, x: Tensor) -> Tensor:
        """Map layer1 [B, 4 * width, h, w] to [B, middle, h, w]."""
        squeezed: Tensor = self.dropout(torch.relu(self.bn1_256(self.aspp1_256(x))))
        return squeezed

    def squeeze_coarse(self, x: Tensor) -> Tensor:
        """Map layer3 [B, 16 * width, h, w] to [B, coarse, h, w]."""
        squeezed: Tensor = self.dropout(torch.relu(self.bn1_1024(self.aspp1_1024(x))))
        return squeezed

    def forward(self, stem: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Map the features at 1/2, 1/4 and 1/8 to [B, features, h/2, w/2]."""
        size = stem.shape[2:]
        maps = [
            self.squeeze_fine(stem),
            functional.interpolate(self.squeeze_middle(low), size, mode="bilinear", align_corners=True),
            functional.interpolate(self.squeeze_coarse(high), size, mode="bilinear", align_corners=True),
        ]
        fused: Tensor = self.last_conv(torch.cat(maps, dim=1))
        return fused


class PixelDecoder(nn.Module):
    """The network that decodes one point from one feature."""

    def __init__(self, config: CrmConfig) -> None:
        super().__init__()
        sizes = [config.features + PLACE, *[config.hidden] * config.layers]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(config.hidden, 1))

    @property
    def first(self) -> nn.Linear:
        """The layer that reads the feature and the place."""
        layer = self.layers[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., features + PLACE] to logits [..., 1]."""
        logits: Tensor = self.layers(x)
        return logits


class CrmNet(nn.Module):
    """Maps a picture and a rough mask to the logits of any points."""

    def __init__(self, config: CrmConfig) -> None:
        super().__init__()
        self.config = config
        self.feats = ResNet(config.blocks, ((1, 2), (1, 4)), config.width, channels=4)
        self.aspp_ = Fusion(config)
        self.imnet = PixelDecoder(config)

    def backbone(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map float32 [B, 4, h, w], normalised RGB and mask in [-1, 1], to features at 1/2, 1/4 and 1/8.

        layer4, which the original computes and drops, is left out.
        """
        net = self.feats
        stem = net.relu(net.bn1(net.conv1(pixels)))
        low = net.layer1(net.maxpool(stem))
        return stem, low, net.layer3(net.layer2(low))

    def features(self, pixels: Tensor) -> Tensor:
        """Map float32 [B, 4, h, w] to [B, features, ceil(h / 2), ceil(w / 2)]."""
        fused: Tensor = self.aspp_(*self.backbone(pixels))
        return fused

    def decode(self, features: Tensor, coords: Tensor, cell: Tensor) -> Tensor:
        """Decode the logits of points, each from its four nearest features.

        Args:
            features: [B, C, h, w].
            coords: [B, Q, 2], y and x in [-1, 1] where the outermost pixels' outer edges are -1 and 1.
            cell: [B, Q, 2], height and width of a pixel in the same units.

        Returns:
            [B, Q].
        """
        height, width = features.shape[2:]
        centres = pixel_centres(height, width).permute(2, 0, 1)[None].expand(features.shape[0], -1, -1, -1)
        scale = torch.tensor([height, width], dtype=coords.dtype)
        predictions, areas = [], []
        for dy in (-1, 1):
            for dx in (-1, 1):
                shift = torch.tensor([dy * (2 / height / 2) + EPSILON, dx * (2 / width / 2) + EPSILON])
                at = (coords + shift.to(coords.dtype)).clamp(-1 + EPSILON, 1 - EPSILON).flip(-1)[:, None]
                feature = functional.grid_sample(features, at, mode="nearest", align_corners=False)[:, :, 0].mT
                centre = functional.grid_sample(centres, at, mode="nearest", align_corners=False)[:, :, 0].mT
                relative = (coords - centre) * scale
                predictions.append(self.imnet(torch.cat([feature, relative, coords, cell * scale], dim=-1))[..., 0])
                areas.append((relative[..., 0] * relative[..., 1]).abs() + MIN_AREA)
        total = torch.stack(areas).sum(0)
        # A prediction's weight is the area of the diagonally opposite cell.
        logits = sum(prediction * (area / total) for prediction, area in zip(predictions, reversed(areas), strict=True))
        assert isinstance(logits, Tensor)  # and not the 0 that a sum starts with
        return logits

    def forward(self, pixels: Tensor, coords: Tensor, cell: Tensor) -> Tensor:
        """Compute everything for every point, in the original's order, and return logits [B, Q]."""
        return self.decode(self.features(pixels), coords, cell)


def pixel_centres(height: int, width: int) -> Tensor:
    """Return float32 [h, w, 2], y and x of every pixel's centre in [-1, 1], as the original's make_coord does."""
    rows, columns = (-1 + 1 / n + (2 / n) * torch.arange(n).float() for n in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)


def build_crm(config: CrmConfig) -> CrmNet:
    """Build a CRM with random weights, in evaluation mode.

    Raises:
        InputError: no network can have these sizes.
    """
    if min(config.width, config.hidden, config.layers, *config.blocks[:3]) < 1 or config.blocks[3] < 0:
        raise InputError(f"CRM config: {config} has a size below 1: give 1 or more")
    if not config.scales or not all(0 < scale <= 1 for scale in config.scales):
        raise InputError(f"CRM config: scales {config.scales} must lie above 0 and up to 1")
    net = CrmNet(config)
    initialise(net.feats)
    initialise(net.aspp_)
    return net.eval()
