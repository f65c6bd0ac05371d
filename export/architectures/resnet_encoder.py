"""A convolutional image encoder for SAM's prompt encoder and mask decoder, small enough to train on a CPU.

It takes the role of SAM's ViT: [B, 3, S, S] normalised image to [B, C, S/16, S/16] embedding. The idea of a
convolutional encoder behind SAM's decoder is NanoSAM's; this network is our own.
"""

import torch
from torch import Tensor, nn

from maskrt.export.architectures.deeplab import build_deeplabv3plus


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


class ResnetEncoder(nn.Module):
    """ResNet-50 of some width with DeepLabV3+'s decoder, whose features at stride 4 are gathered into the embedding.

    Keys and shapes of `encoder` and `decoder` are those of a DeepLabV3+, so that prompts start from what such a network
    has learnt about the kinds of things. The decoder of SAM draws masks at stride 4 from an embedding at
    stride 16: sixteen places share one vector, which a convolution of that size writes. Learned encodings of row and
    column give the embedding its place in the frame, as in SAM's ViT. Without them, two socks have the same
    features, and only the prompt could distinguish them.

    Args:
        out_chans: channels of the embedding.
        width_mult: width of the ResNet-50.
        feature_channels: channels of DeepLabV3+'s decoder.
        image_size: longest side in pixels, a multiple of 16; kept as `img_size`, the name segment_anything reads.
    """

    def __init__(self, out_chans: int, width_mult: float, feature_channels: int, image_size: int) -> None:
        super().__init__()
        self.img_size = image_size
        network = build_deeplabv3plus("resnet50", 1, feature_channels, width_mult)
        self.encoder, self.decoder = network.encoder, network.decoder
        self.fine = nn.Conv2d(feature_channels, out_chans, 4, stride=4)
        self.coarse = nn.Conv2d(network.encoder.out_channels, out_chans, 1)
        self.rows = nn.Parameter(_waves(out_chans, image_size // 16)[:, :, :, None])
        self.columns = nn.Parameter(_waves(out_chans, image_size // 16)[:, :, None])
        self.neck = nn.Sequential(nn.Conv2d(out_chans, out_chans, 3, padding=1), LayerNorm2d(out_chans))

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.encoder(x)
        gathered = self.fine(self.decoder(low, high)) + self.coarse(high)
        embedding: Tensor = self.neck(gathered + self.rows + self.columns)
        return embedding


def _waves(channels: int, side: int) -> Tensor:
    """Return [1, channels, side]: for every channel a wave of its own, of at most two periods over the frame."""
    place = torch.arange(side) / side
    frequency, phase = 2 * torch.rand(channels, 1), torch.rand(channels, 1)
    return 0.3 * torch.cos(2 * torch.pi * (frequency * place + phase))[None]
