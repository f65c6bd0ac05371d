"""SAM's prompt encoder and mask decoder as one graph.

Source: segment_anything 1.0, modeling/mask_decoder.py and prompt_encoder.py.
"""

from typing import Any

import torch
from torch import Tensor, nn


class DecoderGraph(nn.Module):
    """Prompt encoder and mask decoder for many prompts on one image, without data-dependent shapes.

    Equals SamPredictor.predict_torch(..., multimask_output=True) before upsampling. Labels: 1 foreground, 0 background,
    2 and 3 the corners of a box, -1 padding; where there is no box, the caller appends the point (0, 0) labelled -1.
    """

    dense_pe: Tensor
    no_mask: Tensor
    label_embeddings: Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.decoder = sam.mask_decoder
        self.pe_layer = sam.prompt_encoder.pe_layer
        self.image_size = int(sam.prompt_encoder.input_image_size[0])
        prompts = sam.prompt_encoder
        embeddings = [prompts.not_a_point_embed, *prompts.point_embeddings]  # in the order of labels -1, 0, 1, 2, 3
        self.register_buffer("label_embeddings", torch.cat([e.weight.detach() for e in embeddings]), persistent=False)
        self.register_buffer("dense_pe", prompts.get_dense_pe().detach(), persistent=False)
        self.register_buffer("no_mask", prompts.no_mask_embed.weight.detach()[:, :, None, None], persistent=False)

    def embed_prompts(self, point_coords: Tensor, point_labels: Tensor) -> Tensor:
        """float32 [B, P, 2] x, y in encoder pixels and [B, P] labels -> [B, P, C]. Source: PromptEncoder."""
        # torch.where in place of upstream's boolean indexing, which would export as NonZero.
        position = self.pe_layer._pe_encoding((point_coords + 0.5) / self.image_size)
        labels = point_labels[..., None]
        embedding = torch.where(labels == -1, torch.zeros_like(position), position)
        for index, label in enumerate((-1, 0, 1, 2, 3)):
            embedding = embedding + (labels == label).to(position.dtype) * self.label_embeddings[index]
        return embedding

    def forward(self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """[1, C, e, e], [B, P, 2], [B, P] -> low_res_masks float32 [B, 3, 4e, 4e], pred_iou float32 [B, 3]."""
        decoder = self.decoder
        prompts = self.embed_prompts(point_coords, point_labels)
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output_tokens[None].expand(prompts.shape[0], -1, -1), prompts], dim=1)
        # Upstream repeats the image B times first. Attention broadcasts over a batch of one, so the first layer's
        # three projections of the image run once per image, not once per prompt.
        tokens, image = decoder.transformer(image_embeddings + self.no_mask, self.dense_pe, tokens)
        side = self.dense_pe.shape[-1]
        image = image.transpose(1, 2).reshape(-1, self.dense_pe.shape[1], side, side)
        upscaled = decoder.output_upscaling(image)
        # Token 0 is the IoU's, token 1 the single mask's, which multimask output drops.
        kernels = [decoder.output_hypernetworks_mlps[i](tokens[:, 1 + i]) for i in (1, 2, 3)]
        masks = torch.stack(kernels, dim=1) @ upscaled.flatten(2)
        return masks.reshape(-1, 3, 4 * side, 4 * side), decoder.iou_prediction_head(tokens[:, 0])[:, 1:]
