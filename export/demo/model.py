"""The demo SAM: its sizes, an initialisation with which it learns in an hour on two cores, and how weights are kept."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from maskrt.export.architectures.sam import SamConfig
from maskrt.runtime.files import write_bytes

DEMO_SAM = SamConfig(
    encoder="resnet",
    image_size=512,
    prompt_dim=128,
    width_mult=0.25,
    feature_channels=64,
    decoder_heads=4,
    decoder_mlp_dim=256,
    iou_head_dim=128,
)


@torch.no_grad()
def initialise(model: Any) -> Any:
    """Start the decoder so that from the first step every mask token holds the image's content at the point.

    Attention of a token to the image finds its place where query and key carry the same positional encoding. So the
    frequencies are spread over two octaves (one width is too blunt for cables), every attention between tokens and
    image starts with equal orthogonal query and key projections, and everything else that is added to queries and keys
    starts small. There are four heads of 16 channels, because eight random channels cannot distinguish 4096 places.
    Attention among tokens starts as their mean, which is the point's encoding, since the others are small. What a token
    reads of the image comes back along the directions in which it was read.
    """
    prompts, decoder = model.prompt_encoder, model.mask_decoder
    frequencies = prompts.pe_layer.positional_encoding_gaussian_matrix
    frequencies *= torch.logspace(0, 2, frequencies.shape[1], base=2.0)
    small = [*prompts.point_embeddings, prompts.not_a_point_embed, prompts.no_mask_embed]
    for embedding in (*small, decoder.iou_token, decoder.mask_tokens):
        embedding.weight *= 0.1
    transformer = decoder.transformer
    readers, writers = [transformer.final_attn_token_to_image], []
    for layer in transformer.layers:
        readers.append(layer.cross_attn_token_to_image)
        writers.append(layer.cross_attn_image_to_token)
        layer.norm1.weight *= 0.3  # tokens, before they look at the image
        layer.norm4.weight *= 0.5  # the image, after the tokens have looked
        _pass_on(layer.self_attn, torch.eye(layer.self_attn.internal_dim))
    transformer.layers[-1].norm3.weight *= 0.3
    model.image_encoder.neck[-1].weight *= 0.5
    for attention in (*readers, *writers):
        weight = nn.init.orthogonal_(torch.empty_like(attention.q_proj.weight)) * 1.6
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight.copy_(weight)
            projection.bias.zero_()
    for attention in readers:
        _pass_on(attention, nn.init.orthogonal_(torch.empty_like(attention.v_proj.weight)))
    return model


def _pass_on(attention: Any, directions: torch.Tensor) -> None:
    """Make an attention return the mean of the values it reads, in the directions [internal, C]."""
    attention.v_proj.weight.copy_(directions)
    attention.out_proj.weight.copy_(directions.T)
    attention.v_proj.bias.zero_()
    attention.out_proj.bias.zero_()


def save_half(model: nn.Module, path: Path) -> None:
    """Write the weights in half precision, in which the repository holds them and from which bundles are made."""
    state = model.state_dict().items()
    halves = {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state}
    write_bytes(path, save(halves))
