"""CRM in parts that a runtime can drive tile by tile; maskrt.export.architectures.crm defines the answer."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.architectures.crm import MIN_AREA, PLACE, CrmNet, Fusion, PixelDecoder
from maskrt.kernels.pixel_decoder.types import AxisTable, DecoderWeights


def project(decoder: PixelDecoder, features: Tensor) -> Tensor:
    """Apply the pixel decoder's first layer to every feature: [B, C, h, w] -> [B, hidden, h, w].

    The layer is linear and a feature is taken as it is, so it runs once per feature, not once per pixel.
    """
    weight = decoder.first.weight[:, : features.shape[1], None, None]
    return functional.conv2d(features, weight)


def decode_window(decoder: PixelDecoder, projected: Tensor, rows: AxisTable, columns: AxisTable) -> Tensor:
    """Return the logits of a window of pixels.

    The first layer's term for the place is a term of the row plus one of the column.

    Args:
        projected: [B, hidden, h, w], the features of project().
        rows, columns: tables of the window's H rows and W columns.

    Returns:
        [B, H, W].
    """
    first = decoder.first
    _, *rest = decoder.layers
    placed = first.weight[:, -PLACE:]
    row_terms = _placed(rows, placed[:, 0::2]) + first.bias
    column_terms = _placed(columns, placed[:, 1::2])
    row_areas, column_areas = torch.from_numpy(rows.relative), torch.from_numpy(columns.relative)
    predictions, areas = [], []
    for y in (0, 1):
        for x in (0, 1):
            near = projected.index_select(2, torch.from_numpy(rows.cells[:, y]))
            near = near.index_select(3, torch.from_numpy(columns.cells[:, x]))
            hidden = near.permute(0, 2, 3, 1) + row_terms[y, :, None] + column_terms[x, None]
            for layer in rest:
                hidden = layer(hidden)
            predictions.append(hidden[..., 0])
            areas.append((row_areas[:, y, None] * column_areas[None, :, x]).abs() + MIN_AREA)
    total = torch.stack(areas).sum(0)
    return torch.stack(
        [prediction * (area / total) for prediction, area in zip(predictions, reversed(areas), strict=True)]
    ).sum(0)


def _placed(axis: AxisTable, weight: Tensor) -> Tensor:
    """Return the first layer's terms for relative place, place and cell: weight [hidden, 3] -> [2, n, hidden]."""
    relative, places = torch.from_numpy(axis.relative.T.copy()), torch.from_numpy(axis.places)
    cell = torch.full_like(places, float(axis.cell))
    inputs = torch.stack([torch.stack([side, places, cell], dim=1) for side in relative])
    return inputs @ weight.T


class BackboneGraph(nn.Module):
    """Maps picture and mask to the two coarser scales, squeezed to the channels that the fusion takes."""

    def __init__(self, net: CrmNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map float32 [1, 4, h, w] to [1, m, ceil(h / 4), ceil(w / 4)] and [1, c, ceil(h / 8), ceil(w / 8)]."""
        _, low, high = self.net.backbone(pixels)
        return self.net.aspp_.squeeze_middle(low), self.net.aspp_.squeeze_coarse(high)


class CoarseGraph(nn.Module):
    """The coarsest scale's part in the fusion's 3 x 3 convolution, before it is scaled up.

    A convolution is a sum over its nine taps, each a product with a matrix, and a product with a matrix commutes with
    interpolation. So the matrices are applied at 1/8 of the resolution, in a sixteenth of the places; the runtime
    scales the nine products up, shifts and adds them.
    """

    def __init__(self, net: CrmNet) -> None:
        super().__init__()
        weight, _ = folded_fusion(net.aspp_)
        self.weight = weight[:, -net.config.fused[2] :].permute(2, 3, 0, 1).flatten(0, 2)[:, :, None, None]

    def forward(self, coarse: Tensor) -> Tensor:
        """Map float32 [1, c, h, w] to [9, features, h, w], taps row by row."""
        products: Any = functional.conv2d(coarse, self.weight)  # torch has not typed unflatten
        taps: Tensor = products.unflatten(1, (9, -1))[0]
        return taps


class FusionGraph(nn.Module):
    """A window of the features at half the resolution, projected by the pixel decoder's first layer.

    Both convolutions have no padding: the window that comes in is larger by their margins, and holds zeros where the
    picture ends, as their padding would.
    """

    def __init__(self, net: CrmNet) -> None:
        super().__init__()
        self.stem = _unpadded(net.feats.conv1)
        self.norm = net.feats.bn1
        self.fusion = net.aspp_
        weight, self.bias = folded_fusion(net.aspp_)
        self.weight = weight[:, : -net.config.fused[2]].contiguous()
        self.decoder = net.imnet

    def forward(self, pixels: Tensor, inside: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        """Return the features of m x n cells.

        Args:
            pixels: float32 [1, 4, 2m + 9, 2n + 9], normalised picture and mask, from five before the first cell's.
            inside: float32 [1, 1, m + 2, n + 2], 1 for a cell of the picture and 0 for one beyond it.
            middle: float32 [1, C, m + 2, n + 2], the middle scale at these cells, 0 beyond the picture.
            coarse: float32 [1, features, m, n], the coarsest scale's part in the convolution; see CoarseGraph.

        Returns:
            float32 [m, n, hidden].
        """
        stem = torch.relu(self.norm(self.stem(pixels)))
        finer = torch.cat([self.fusion.squeeze_fine(stem) * inside, middle], dim=1)
        fused = torch.relu(functional.conv2d(finer, self.weight, self.bias) + coarse)
        return project(self.decoder, fused)[0].permute(1, 2, 0)


def folded_fusion(fusion: Fusion) -> tuple[Tensor, Tensor]:
    """Return weight [features, features, 3, 3] and bias [features] of the last convolution with its norm in them."""
    # torch does not know what a Sequential holds.
    convolution: Any = fusion.last_conv[0]
    norm: Any = fusion.last_conv[1]
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    bias = norm.bias.detach() - norm.running_mean * scale
    return convolution.weight.detach() * scale[:, None, None, None], bias


def _unpadded(convolution: nn.Conv2d) -> nn.Conv2d:
    size: Any = convolution.kernel_size  # torch types both as tuples of any length, and takes pairs
    stride: Any = convolution.stride
    copy = nn.Conv2d(convolution.in_channels, convolution.out_channels, size, stride, bias=False)
    copy.weight = convolution.weight
    return copy


def decoder_weights(decoder: PixelDecoder) -> DecoderWeights:
    """Return the pixel decoder's weights as the runtime's kernel takes them."""
    first, *middle, last = (layer for layer in decoder.layers if isinstance(layer, nn.Linear))

    def array(tensor: Tensor) -> NDArray[np.float32]:
        return np.ascontiguousarray(tensor.detach().numpy(), np.float32)

    return DecoderWeights(
        placed=array(first.weight[:, -PLACE:]),
        bias=array(first.bias),
        hidden=array(torch.stack([layer.weight for layer in middle])),
        hidden_bias=array(torch.stack([layer.bias for layer in middle])),
        last=array(last.weight[0]),
        last_bias=np.float32(last.bias.item()),
    )
