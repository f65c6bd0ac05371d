"""The demo SAM's sizes and the initialisation that lets it learn in an hour on two cores."""

from typing import Any

import torch
from torch import nn

from maskrt.export.sam import SamConfig

DEMO_SAM = SamConfig(
    encoder="conv",
    image_size=512,
    prompt_dim=128,
    widths=(48, 96, 160),
    depths=(2, 3, 5),
    decoder_heads=4,
    decoder_mlp_dim=256,
    iou_head_dim=128,
)


@torch.no_grad()
def initialise(model: Any) -> Any:
    """Start the decoder so that a point looks at its own place from the first step.

    A token finds its place where query and key carry the same positional encoding. So the frequencies are spread over
    two octaves (one width is too blunt for cables), every attention between tokens and image starts with equal
    orthogonal query and key projections, and whatever else is added to queries and keys starts small. Four heads of 16
    channels, because eight random channels cannot tell 4096 places apart.
    """
    frequencies = model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    frequencies *= torch.logspace(0, 2, frequencies.shape[1], base=2.0)
    for embedding in (*model.prompt_encoder.point_embeddings, model.prompt_encoder.not_a_point_embed):
        embedding.weight *= 0.1
    transformer = model.mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
        layer.norm1.weight *= 0.3  # tokens, before they look at the image
        layer.norm4.weight *= 0.5  # the image, after the tokens have looked
    transformer.layers[-1].norm3.weight *= 0.3
    model.image_encoder.neck[-1].weight *= 0.5
    for attention in attentions:
        weight = nn.init.orthogonal_(torch.empty_like(attention.q_proj.weight)) * 1.6
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight.copy_(weight)
            projection.bias.zero_()
    return model
