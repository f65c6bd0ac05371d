"""The demo SAM's sizes and the initialisation that lets it learn in an hour on two cores."""

import torch
from torch import Tensor, nn

from maskrt.export.sam import SamConfig

DEMO_SAM = SamConfig(
    encoder="conv",
    image_size=1024,
    prompt_dim=128,
    widths=(48, 96, 160),
    depths=(2, 3, 5),
    decoder_mlp_dim=256,
    iou_head_dim=128,
)


@torch.no_grad()
def initialise(model: nn.Module) -> nn.Module:
    """Start the decoder so that a point looks at its own place from the first step.

    The positional encoding's frequencies are spread over three octaves (one width is too blunt for cables), and every
    token-to-image attention starts with equal orthogonal query and key projections: queries and keys that carry the
    same position then agree the most.
    """
    frequencies = model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    frequencies *= torch.logspace(0, 3, frequencies.shape[1], base=2.0)
    transformer = model.mask_decoder.transformer
    attentions = [layer.cross_attn_token_to_image for layer in transformer.layers]
    attentions += [layer.cross_attn_image_to_token for layer in transformer.layers]
    attentions.append(transformer.final_attn_token_to_image)
    for attention in attentions:
        weight = _orthogonal(attention.q_proj.weight) * 1.6
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight.copy_(weight)
            projection.bias.zero_()
    return model


def _orthogonal(like: Tensor) -> Tensor:
    return nn.init.orthogonal_(torch.empty_like(like))
