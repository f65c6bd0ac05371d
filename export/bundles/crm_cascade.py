"""CRM's cascade in PyTorch, in the original's order of computation. It defines a refined mask."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from maskrt.export.architectures.crm import CrmNet, pixel_centres
from maskrt.runtime.bundle.specs import RefinerSpec

CHUNK = 50176 * 16  # points decoded at a time, as in the public code


Features = Callable[[Tensor], Tensor]  # pixels float32 [1, 4, h, w] -> the features that `Decode` takes
Decode = Callable[[Tensor, int, int], Tensor]  # features, height and width of the mask -> logits [H * W]


@torch.no_grad()
def refine_plainly(
    net: CrmNet,
    spec: RefinerSpec,
    rgb: NDArray[np.uint8],
    rough: NDArray[np.float32],
    features: Features | None = None,
    decode: Decode | None = None,
) -> NDArray[np.float32]:
    """Refine a mask the way the public code does, layer4 included where the network has it.

    Args:
        rgb: uint8 [H, W, 3]; rough: float32 [H, W] in [0, 1]. Sides must exceed the padding.
        features, decode: replace the original's, with the same answer.

    Returns:
        The probability, float32 [H, W].

    Source: test.py and dataset/offline_dataset_crm_pad32.py of the public code.
    """
    features, decode = features or original_features(net), decode or original_decode(net)
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    pad = (spec.padding,) * 4
    picture = (torch.from_numpy(rgb).permute(2, 0, 1).float().div(255) - mean) / std
    picture = functional.pad(picture[None], pad, mode="reflect")
    mask = functional.pad((torch.from_numpy(rough)[None, None] - 0.5) / 0.5, pad, mode="reflect")
    height, width = mask.shape[2:]
    for scale in spec.scales:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = functional.interpolate(torch.cat([picture, mask], 1), size, mode="bilinear", align_corners=True)
        probability = decode(features(pixels), height, width).sigmoid().reshape(1, 1, height, width)
        if (mask + 1).sum() < 2:  # hardly anything came in
            probability = torch.zeros_like(probability)
        mask = (probability - 0.5) * 2
    inner: NDArray[np.float32] = probability[0, 0, pad[0] : height - pad[0], pad[0] : width - pad[0]].numpy()
    return inner


def original_features(net: CrmNet) -> Features:
    """Return a function that runs all of the backbone, then the fusion."""

    def features(pixels: Tensor) -> Tensor:
        stem, low, high = net.backbone(pixels)
        net.feats.layer4(high)  # the original computes it and drops it
        fused: Tensor = net.aspp_(stem, low, high)
        return fused

    return features


def original_decode(net: CrmNet) -> Decode:
    """Return a function that decodes every point by itself, CHUNK at a time."""

    def decode(features: Tensor, height: int, width: int) -> Tensor:
        coords = pixel_centres(height, width).reshape(1, -1, 2)
        cell = torch.ones_like(coords) * torch.tensor([2 / height, 2 / width])
        parts = (slice(at, at + CHUNK) for at in range(0, coords.shape[1], CHUNK))
        return torch.cat([net.decode(features, coords[:, part], cell[:, part]) for part in parts], dim=1)[0]

    return decode
