"""SAM's prompt encoder and mask decoder as one graph, for any number of prompts: points, boxes, and masks.

Upstream repeats the image for every prompt. Here, in the first layer, prompts that share an image share its projections
too. From then on every prompt has an image of its own.

Source: segment_anything 1.0, modeling/mask_decoder.py and transformer.py; utils/onnx.py for the inputs.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

DECODER_INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input")
DECODER_OUTPUTS = ("low_res_masks", "pred_iou")


class PromptEmbedder(nn.Module):
    """SAM's prompt encoder without data-dependent shapes, and the mask decoder that a graph runs behind it.

    Labels: 1 foreground, 0 background, 2 and 3 the corners of a box, -1 padding; where there are points but no box, the
    caller appends the point (0, 0) labelled -1.
    """

    dense_pe: Tensor
    no_mask: Tensor
    label_embeddings: Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.decoder = sam.mask_decoder
        self.pe_layer = sam.prompt_encoder.pe_layer
        self.mask_downscaling = sam.prompt_encoder.mask_downscaling
        self.image_size = int(sam.prompt_encoder.input_image_size[0])
        prompts = sam.prompt_encoder
        embeddings = [prompts.not_a_point_embed, *prompts.point_embeddings]  # in the order of labels -1, 0, 1, 2, 3
        self.register_buffer("label_embeddings", torch.cat([e.weight.detach() for e in embeddings]), persistent=False)
        self.register_buffer("dense_pe", prompts.get_dense_pe().detach(), persistent=False)
        self.register_buffer("no_mask", prompts.no_mask_embed.weight.detach()[:, :, None, None], persistent=False)

    def embed_prompts(self, point_coords: Tensor, point_labels: Tensor) -> Tensor:
        """Map float32 [B, P, 2], x and y in encoder pixels, and [B, P] labels to [B, P, C]. Source: PromptEncoder."""
        # torch.where replaces upstream's boolean indexing, which would export as NonZero.
        position = self.pe_layer._pe_encoding((point_coords + 0.5) / self.image_size)
        labels = point_labels[..., None]
        embedding = torch.where(labels == -1, torch.zeros_like(position), position)
        for index, label in enumerate((-1, 0, 1, 2, 3)):
            embedding = embedding + (labels == label).to(position.dtype) * self.label_embeddings[index]
        return embedding

    def embed_mask(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Map [M, 1, 4e, 4e] logits and [1], 1 or 0, to [M, C, e, e]. Source: SamOnnxModel._embed_masks."""
        embedded: Tensor = has_mask_input * self.mask_downscaling(mask_input) + (1 - has_mask_input) * self.no_mask
        return embedded


class DecoderGraph(PromptEmbedder):
    """Prompt encoder and mask decoder for many prompts on one image.

    Equals SamPredictor.predict_torch(..., multimask_output=True) before upsampling. Labels are those of PromptEmbedder.
    """

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return every prompt's masks and predicted IoUs.

        Args:
            image_embeddings: [1, C, e, e]; point_coords: [B, P, 2]; point_labels: [B, P], without points P is 0;
            mask_input: [M, 1, 4e, 4e], one mask for all prompts (M = 1) or one for each (M = B), as low-res logits;
            has_mask_input: [1], 1, or 0 where there is no mask. All float32.

        Returns:
            low_res_masks float32 [B, 3, 4e, 4e] and pred_iou float32 [B, 3].
        """
        decoder, transformer = self.decoder, self.decoder.transformer
        prompts = self.embed_prompts(point_coords, point_labels)
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output_tokens[None].expand(prompts.shape[0], -1, -1), prompts], dim=1)
        place = self.dense_pe.flatten(2).transpose(1, 2)
        keys = (image_embeddings + self.embed_mask(mask_input, has_mask_input)).flatten(2).transpose(1, 2)
        queries, keys = _first_layer(transformer.layers[0], tokens, keys, place)
        for layer in transformer.layers[1:]:
            queries, keys = layer(queries, keys, tokens, place)
        queries = queries + transformer.final_attn_token_to_image(queries + tokens, keys + place, keys)
        queries = transformer.norm_final_attn(queries)
        side = self.dense_pe.shape[-1]
        image = keys.transpose(1, 2).reshape(-1, self.dense_pe.shape[1], side, side)
        upscaled = decoder.output_upscaling(image)
        # Token 0 is the IoU's, token 1 the single mask's, which multimask output drops.
        kernels = [decoder.output_hypernetworks_mlps[i](queries[:, 1 + i]) for i in (1, 2, 3)]
        masks = torch.stack(kernels, dim=1) @ upscaled.flatten(2)
        return masks.reshape(-1, 3, 4 * side, 4 * side), decoder.iou_prediction_head(queries[:, 0])[:, 1:]


class PlainDecoderGraph(nn.Module):
    """Gives DecoderGraph's answer with segment_anything's own decoder, which repeats the image for every prompt."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.prompts = DecoderGraph(sam)
        self.decoder = sam.mask_decoder

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Take DecoderGraph's arguments and give its answer."""
        masks, pred_iou = self.decoder(
            image_embeddings=image_embeddings,
            image_pe=self.prompts.dense_pe,
            sparse_prompt_embeddings=self.prompts.embed_prompts(point_coords, point_labels),
            dense_prompt_embeddings=self.prompts.embed_mask(mask_input, has_mask_input),
            multimask_output=True,
        )
        return masks, pred_iou


def _first_layer(layer: Any, tokens: Tensor, image: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Run the transformer's first layer on B prompts and M images; return tokens [B, T, C] and images [B, N, C].

    Upstream first repeats the image for every prompt. Here it is projected once, and B / M prompts in a row share it.

    Args:
        tokens: [B, T, C]; image: [M, N, C], where M divides B; place: [1, N, C], the image's positional encoding.
    """
    images, placed = image.shape[0], image + place
    queries = layer.norm1(layer.self_attn(tokens, tokens, tokens))
    # A token's view of the image does not depend on the other tokens: those of all prompts are one sequence.
    asking = (queries + tokens).reshape(images, -1, tokens.shape[2])
    seen = layer.cross_attn_token_to_image(asking, placed, image)
    queries = layer.norm2(queries + seen.reshape(queries.shape))
    queries = layer.norm3(queries + layer.mlp(queries))
    # The image's view of the tokens is of one prompt at a time: [M, 1, h, N, d] against [M, B / M, h, T, d].
    attention = layer.cross_attn_image_to_token
    heads = attention.num_heads
    own = heads_apart(attention.q_proj(placed), heads)[:, None]
    keys: Any = heads_apart(attention.k_proj(queries + tokens), heads)  # Any: torch has not typed unflatten
    keys = keys.unflatten(0, (images, -1))
    values: Any = heads_apart(attention.v_proj(queries), heads)
    values = values.unflatten(0, (images, -1))
    shares = (own @ keys.transpose(-1, -2) / math.sqrt(own.shape[-1])).softmax(-1)
    written = attention.out_proj((shares @ values).transpose(2, 3).flatten(3))
    return queries, layer.norm4(image[:, None] + written).flatten(0, 1)


def heads_apart(x: Tensor, heads: int) -> Tensor:
    """Map [..., n, h * d] to [..., h, n, d]."""
    untyped: Any = x  # torch has not typed unflatten
    apart: Tensor = untyped.unflatten(-1, (heads, -1)).transpose(-2, -3)
    return apart
