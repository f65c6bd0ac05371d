"""A SAM with random weights whose masks are worth timing, for sizes whose trained weights cannot be shipped.

Weights as PyTorch initialises them give flat masks and one predicted IoU for every point, so that nothing or everything
passes the gates. Here the heads are scaled on a picture until about a third of the masks pass the predicted-IoU gate,
as with trained weights, and most of those are stable. The masks mean nothing; the arithmetic is that of the real model.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from maskrt.export.architectures.sam import SamConfig, build_sam
from maskrt.runtime.bundle.specs import MasksSpec
from maskrt.runtime.region import fit_size_hw
from maskrt.runtime.sam.prompts import point_grid

PASSING = 1 / 3
PRED_IOU_STD = 0.05
STABLE = 0.6  # of the masks past the IoU gate, at least
LOGIT_STD, LOGIT_OFFSET = 6.0, -7.0  # the offset makes masks small, so that their boxes differ and survive the NMS
PROBE_POINTS_PER_SIDE = 20  # a quarter of the paper's grid: the quantile is good to 2%, the probe four times cheaper
BATCH = 64


@torch.no_grad()
def random_sam(config: SamConfig, seed: int, rgb: NDArray[np.uint8], masks: MasksSpec) -> Any:
    """Make a network of the given sizes, with heads calibrated on uint8 [H, W, 3] for the thresholds of `masks`."""
    torch.manual_seed(seed)
    sam = build_sam(config)
    _smooth(sam, config)
    embedding = _embed(sam, config, rgb)
    coords = _probe_coords(config, rgb.shape[:2], min(masks.points_per_side, PROBE_POINTS_PER_SIDE))
    _centre_masks(sam, embedding, coords)
    logits, pred_iou = _decode(sam, embedding, coords)
    _calibrate_pred_iou(sam.mask_decoder.iou_prediction_head.layers[-1], pred_iou, masks.pred_iou_thresh)
    _scale_masks(sam, logits.std(dim=(0, 2, 3)))
    for _ in range(6):
        if _stable_fraction(sam, embedding, coords, masks) >= STABLE:
            break
        _scale_masks(sam, torch.full((3,), LOGIT_STD / 2), offset=2.0)  # steeper edges move less with the threshold
    return sam


def _smooth(sam: Any, config: SamConfig) -> None:
    """Make embeddings vary slowly over the picture, and take the random pattern out of the decoder's cells."""
    if config.encoder == "vit":
        side = config.embedding_size
        coarse = torch.randn(1, config.embed_dim, 5, 5)
        slow = nn.functional.interpolate(coarse, (side, side), mode="bicubic")
        sam.image_encoder.pos_embed.copy_(slow.permute(0, 2, 3, 1))
    sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(0.3)
    for convolution in (sam.mask_decoder.output_upscaling[0], sam.mask_decoder.output_upscaling[3]):
        mean = convolution.weight.mean(dim=(2, 3), keepdim=True)
        convolution.weight.copy_(mean.expand_as(convolution.weight) * 4)


def _embed(sam: Any, config: SamConfig, rgb: NDArray[np.uint8]) -> Tensor:
    height, width = fit_size_hw((rgb.shape[0], rgb.shape[1]), (config.image_size, config.image_size))
    small = np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))
    embedding: Tensor = sam.image_encoder(sam.preprocess(torch.from_numpy(small).permute(2, 0, 1)[None].float()))
    return embedding


def _probe_coords(config: SamConfig, size_hw: tuple[int, ...], points_per_side: int) -> Tensor:
    height, width = fit_size_hw((size_hw[0], size_hw[1]), (config.image_size, config.image_size))
    return torch.from_numpy(point_grid(points_per_side) * np.array([width, height])).float()[:, None]


def _decode(sam: Any, embedding: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
    """Return low_res_masks [N, 3, l, l] and pred_iou [N, 3] of every prompt."""
    masks, ious = [], []
    for batch in torch.split(coords, BATCH):
        sparse, dense = sam.prompt_encoder((batch, torch.ones(len(batch), 1)), None, None)
        low_res, iou = sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, True)
        masks.append(low_res)
        ious.append(iou)
    return torch.cat(masks), torch.cat(ious)


def _centre_masks(sam: Any, embedding: Tensor, coords: Tensor) -> None:
    """Remove the part that the mask vectors of all points share, so that masks differ from point to point."""
    mlps = sam.mask_decoder.output_hypernetworks_mlps
    seen: list[list[Tensor]] = [[] for _ in mlps]
    hooks = [
        mlp.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out))
        for mlp, kept in zip(mlps, seen, strict=True)
    ]
    _decode(sam, embedding, coords[:: max(1, len(coords) // BATCH)])
    for hook in hooks:
        hook.remove()
    for mlp, kept in zip(mlps, seen, strict=True):
        mlp.layers[-1].bias.sub_(torch.cat(kept).mean(dim=0))


def _scale_masks(sam: Any, std: Tensor, offset: float | None = None) -> None:
    """Bring logits from a deviation of `std` per mask to LOGIT_STD; channel 0 becomes a constant that lowers them all.

    offset: None sets LOGIT_OFFSET, a number multiplies what is there.
    """
    decoder = sam.mask_decoder
    for mlp, deviation in zip(decoder.output_hypernetworks_mlps[1:], std, strict=True):
        last = mlp.layers[-1]
        last.weight.mul_(LOGIT_STD / deviation)
        lowered = LOGIT_OFFSET if offset is None else float(last.bias[0]) * offset
        last.bias.mul_(LOGIT_STD / deviation)
        last.weight[0], last.bias[0] = 0, lowered
    final = decoder.output_upscaling[3]
    final.weight[:, 0], final.bias[0] = 0, 1


def _calibrate_pred_iou(last: nn.Linear, pred_iou: Tensor, threshold: float) -> None:
    """Scale each of the three estimates to PRED_IOU_STD and shift it so that PASSING of them exceed the threshold."""
    gain = PRED_IOU_STD / pred_iou.std(dim=0)
    shift = threshold - torch.quantile(pred_iou * gain, 1 - PASSING, dim=0)
    # Row 0 is the estimate of the single mask, which multimask output drops.
    last.weight[1:] *= gain[:, None]
    last.bias[1:] = last.bias[1:] * gain + shift


def _stable_fraction(sam: Any, embedding: Tensor, coords: Tensor, masks: MasksSpec) -> float:
    """Return the share of the masks past the IoU gate that also pass the stability gate, at low resolution."""
    logits, pred_iou = _decode(sam, embedding, coords)
    passed = logits[pred_iou > masks.pred_iou_thresh]
    inner = (passed > masks.stability_score_offset).sum(dim=(1, 2))
    outer = (passed > -masks.stability_score_offset).sum(dim=(1, 2))
    return float((inner >= masks.stability_score_thresh * outer.clamp(min=1)).float().mean())
