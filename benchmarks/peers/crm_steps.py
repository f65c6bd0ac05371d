"""CRM in PyTorch: the original's order of computation, then one exact saving after the other."""

import torch
from torch import Tensor
from torch.nn import functional

from maskrt.export.architectures.crm import EPSILON, MIN_AREA, CrmNet, pixel_centres
from maskrt.export.bundles.crm_cascade import CHUNK, Decode, Features, original_decode, original_features
from maskrt.export.graphs.crm_graphs import decode_window, project
from maskrt.kernels.pixel_decoder.tables import axis_table


def steps(net: CrmNet) -> dict[str, tuple[Features, Decode]]:
    """Return name -> how features are made and decoded. Every step keeps the savings before it."""

    def projected(pixels: Tensor) -> Tensor:
        return project(net.imnet, net.features(pixels))

    return {
        "pytorch_original": (original_features(net), original_decode(net)),
        "pytorch_no_layer4": (net.features, original_decode(net)),
        "pytorch_projected": (projected, _projected_decode(net)),
        "pytorch_index_tables": (projected, _table_decode(net)),
    }


def _projected_decode(net: CrmNet) -> Decode:
    """Decode as the original does, from features that the first layer has already projected."""
    first = net.imnet.first
    _, *rest = net.imnet.layers
    placed = first.weight[:, net.config.features :]

    def points(features: Tensor, coords: Tensor, cell: Tensor) -> Tensor:
        height, width = features.shape[2:]
        centres = pixel_centres(height, width).permute(2, 0, 1)[None]
        scale = torch.tensor([height, width], dtype=coords.dtype)
        predictions, areas = [], []
        for dy in (-1, 1):
            for dx in (-1, 1):
                shift = torch.tensor([dy / height + EPSILON, dx / width + EPSILON])
                at = (coords + shift).clamp(-1 + EPSILON, 1 - EPSILON).flip(-1)[:, None]
                near = functional.grid_sample(features, at, mode="nearest", align_corners=False)[:, :, 0].mT
                centre = functional.grid_sample(centres, at, mode="nearest", align_corners=False)[:, :, 0].mT
                relative = (coords - centre) * scale
                hidden = near + torch.cat([relative, coords, cell * scale], dim=-1) @ placed.T + first.bias
                for layer in rest:
                    hidden = layer(hidden)
                predictions.append(hidden[..., 0])
                areas.append((relative[..., 0] * relative[..., 1]).abs() + MIN_AREA)
        total = torch.stack(areas).sum(0)
        weighed = [p * (area / total) for p, area in zip(predictions, reversed(areas), strict=True)]
        return torch.stack(weighed).sum(0)

    def decode(features: Tensor, height: int, width: int) -> Tensor:
        coords = pixel_centres(height, width).reshape(1, -1, 2)
        cell = torch.ones_like(coords) * torch.tensor([2 / height, 2 / width])
        parts = (slice(at, at + CHUNK) for at in range(0, coords.shape[1], CHUNK))
        return torch.cat([points(features, coords[:, part], cell[:, part]) for part in parts], dim=1)[0]

    return decode


def _table_decode(net: CrmNet) -> Decode:
    """Decode with row and column tables in place of grid samples, a band of rows at a time."""

    def decode(features: Tensor, height: int, width: int) -> Tensor:
        rows, columns = axis_table(height, features.shape[2]), axis_table(width, features.shape[3])
        band = max(1, CHUNK // width)
        bands = [
            decode_window(net.imnet, features, rows.part(at, at + band), columns)[0].reshape(-1)
            for at in range(0, height, band)
        ]
        return torch.cat(bands)

    return decode
