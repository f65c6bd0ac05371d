"""The U-Net of the two-stage document, with the module names of its public code, in any width.

Source: "Two-stage Semantic Segmentation in Neural Networks", section 4.2. The public code, dianartsilva's
two-stage-segmentation, defines the keys of the state dict and the answer; its width is 64, and it returns one logit.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.runtime.errors import CheckpointError

DEPTH = 5  # convolutions of stride 2
MULTIPLE = 2**DEPTH  # the sides of a picture must be multiples of it, or skips would not fit


class UNet(nn.Module):
    """Five convolutions of stride 2, then five transposed ones that each also see the encoder at their scale."""

    def __init__(self, channels: int, width: int = 64, classes: int = 1) -> None:
        """Make the layers.

        channels: of the picture; width: channels after the first convolution, doubled by each further one.
        """
        super().__init__()
        self.channels, self.classes = channels, classes
        widths = [width << level for level in range(DEPTH)]
        self.conv = nn.ModuleList(
            nn.Conv2d(before, after, 3, 2, 1) for before, after in zip([channels, *widths], widths, strict=False)
        )
        outputs = [after // 2 for after in reversed(widths)]
        self.deconv = nn.ModuleList(
            # Twice the channels: those from below, and the skip.
            nn.ConvTranspose2d(2 * before, after, 3, 2, 1, 1)
            for before, after in zip(reversed(widths), outputs, strict=True)
        )
        self.final = nn.Conv2d(outputs[-1], classes, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """Map a picture float32 [B, channels, H, W] to logits float32 [B, classes, H, W]."""
        x, skips = picture, []
        for layer in self.conv:
            x = functional.relu(layer(x))
            skips.append(x)
        for layer, skip in zip(self.deconv, reversed(skips), strict=True):
            x = functional.relu(layer(torch.cat((x, skip), 1)))
        logits: Tensor = self.final(x)
        return logits


def unet_for(state: Mapping[str, Tensor]) -> UNet:
    """Build an untrained U-Net in the sizes of a state dict.

    Raises:
        CheckpointError: the state dict has no such layers.
    """
    first, last = state.get("conv.0.weight"), state.get("final.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 4 or first.shape[0] % 2:
        raise CheckpointError("no U-Net of the two-stage code: conv.0.weight and final.weight are expected")
    return UNet(channels=first.shape[1], width=first.shape[0], classes=last.shape[0])
