"""A convolutional image encoder for SAM's prompt encoder and mask decoder, small enough to train on a CPU.

In the role of SAM's ViT: [B, 3, S, S] normalised image to [B, C, S/16, S/16] embedding. The idea of a convolutional
encoder behind SAM's decoder is NanoSAM's; this network is our own.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of [B, C, H, W]."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return centred * scale * self.weight[:, None, None] + self.bias[:, None, None]


class Block(nn.Module):
    """Residual: 3x3 to half the width, 3x3 back; batch norm, so that it folds away at export."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))


class ContextLayer(nn.Module):
    """Residual: every cell attends to every cell, then a small perceptron. It starts as the identity."""

    def __init__(self, channels: int, head_channels: int = 32) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.norm1 = LayerNorm2d(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.norm2 = LayerNorm2d(channels)
        self.mlp = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.Conv2d(channels, channels, 1))
        for last in (self.project, self.mlp[2]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        shape = batch, 3, self.heads, channels // self.heads, height * width
        query, key, value = self.qkv(self.norm1(x)).reshape(shape).transpose(-1, -2).unbind(1)
        read = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.project(read.transpose(-1, -2).reshape(batch, channels, height, width))
        return x + self.mlp(self.norm2(x))


def _waves(channels: int, side: int) -> Tensor:
    """[1, channels, side]: a wave of its own for every channel, of at most two periods over the frame."""
    place = torch.arange(side) / side
    frequency, phase = 2 * torch.rand(channels, 1), torch.rand(channels, 1)
    return 0.3 * torch.cos(2 * torch.pi * (frequency * place + phase))[None]


class ConvEncoder(nn.Module):
    """Three stages at strides 4, 8 and 16, and attention over the whole frame after the last; the embedding sums them.

    The finer stages reach the embedding through strided convolutions, because the decoder draws masks at stride 4
    from a stride-16 embedding: what a 3-pixel cable looks like must survive the way down. Every stage is told where
    in the frame it is by learned encodings of the row and of the column, as SAM's ViT is: without them, two socks have
    the same features, and only the prompt could tell them apart. Attention is for what is wider than the convolutions
    see: the two ends of a striped blanket are one object.

    Args:
        out_chans: channels of the embedding.
        widths, depths: channels and number of blocks of each stage.
        context: layers of attention; the last width must then be a multiple of 32.
        image_size: longest side in pixels; kept as `img_size`, the name segment_anything reads.
    """

    def __init__(
        self, out_chans: int, widths: tuple[int, ...], depths: tuple[int, ...], context: int, image_size: int
    ) -> None:
        super().__init__()
        self.img_size = image_size
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 4, stride=4, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(depth))) for width, depth in zip(widths, depths, strict=True)
        )
        self.context = nn.Sequential(*(ContextLayer(widths[-1]) for _ in range(context)))
        sides = [image_size // (4 * 2**index) for index in range(len(widths))]
        self.rows = nn.ParameterList(
            _waves(width, side)[:, :, :, None] for width, side in zip(widths, sides, strict=True)
        )
        self.columns = nn.ParameterList(
            _waves(width, side)[:, :, None] for width, side in zip(widths, sides, strict=True)
        )
        self.downs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 2, stride=2, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in itertools.pairwise(widths)
        )
        last = len(widths) - 1
        self.laterals = nn.ModuleList(
            nn.Conv2d(width, out_chans, 2 ** (last - index), stride=2 ** (last - index))
            for index, width in enumerate(widths)
        )
        self.neck = nn.Sequential(nn.Conv2d(out_chans, out_chans, 3, padding=1), LayerNorm2d(out_chans))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        embedding = torch.zeros((), dtype=x.dtype, device=x.device)
        for index, stage in enumerate(self.stages):
            x = x if index == 0 else self.downs[index - 1](x)
            x = stage(x + self.rows[index] + self.columns[index])
            x = self.context(x) if stage is self.stages[-1] else x
            embedding = embedding + self.laterals[index](x)
        return self.neck(embedding)
