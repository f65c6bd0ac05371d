"""Two classes from the one logit of a binary segmenter."""

import torch
from torch import Tensor, nn


class TwoLogits(nn.Module):
    """A binary segmenter with one logit each for background and foreground.

    For a logit x they are 0 and x, whose softmax is 1 - sigmoid(x) and sigmoid(x): what the network was trained for.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Map what the network takes to logits [B, 2, H, W]."""
        logit = self.network(image)
        return torch.cat([torch.zeros_like(logit), logit], 1)
