"""SAM's prompt encoder and mask decoder for one prompt whose decoder is still learning: all four masks, and a gradient.

maskrt.export.graphs.decoder has the graph for many prompts and weights that stay. Here everything is two-dimensional,
tokens by channels, and stride-2 transposed convolutions are matrix products: each of their output pixels has one input
pixel, and tracing a convolution's gradient would leave operators that ONNX does not have.

Source: segment_anything 1.0, modeling/mask_decoder.py and transformer.py.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrt.export.graphs.decoder import PromptEmbedder, heads_apart


class ClickGraph(PromptEmbedder):
    """The part that ClickDecoder and PartOfMask share: attention between one prompt and the image."""

    def attended(self, prompt: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return queries [T, C], the IoU's first and then the masks', and image [e * e, C], after both saw each other.

        Args:
            prompt: the arguments of forward.
        """
        image_embeddings, point_coords, point_labels, mask_input, has_mask_input = prompt
        decoder, transformer = self.decoder, self.decoder.transformer
        channels = self.dense_pe.shape[1]
        prompts = self.embed_prompts(point_coords, point_labels).reshape(-1, channels)
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, prompts])
        place = self.dense_pe.reshape(channels, -1).transpose(0, 1)
        image = (image_embeddings + self.embed_mask(mask_input, has_mask_input)).reshape(channels, -1).transpose(0, 1)
        queries = tokens
        for layer in transformer.layers:
            queries, image = _layer(layer, queries, image, tokens, place)
        seen = _attend(transformer.final_attn_token_to_image, queries + tokens, image + place, image)
        return _norm(transformer.norm_final_attn, queries + seen), image

    def kernels(self, queries: Tensor) -> Tensor:
        """Return the kernels of the four masks, [4, C / 8]."""
        heads = self.decoder.output_hypernetworks_mlps
        return torch.cat([_perceptron(heads[i], queries[1 + i : 2 + i]) for i in range(4)])


class ClickDecoder(ClickGraph):
    """Maps one prompt to SAM's four masks: the single one first, then those of an ambiguous click.

    Equals MaskDecoder.predict_masks. Labels are those of PromptEmbedder; the caller pads where there is no box.
    """

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the masks and predicted IoUs of a prompt.

        Args:
            image_embeddings: [1, C, e, e]; point_coords: [1, P, 2]; point_labels: [1, P]; mask_input: [1, 1, 4e, 4e],
                low-res logits; has_mask_input: [1], 1, or 0 where there is no mask. All float32.

        Returns:
            low_res_masks float32 [4, 4e, 4e] and pred_iou float32 [4].
        """
        decoder, side = self.decoder, self.dense_pe.shape[-1]
        queries, image = self.attended((image_embeddings, point_coords, point_labels, mask_input, has_mask_input))
        masks = self.kernels(queries) @ _upscale(decoder.output_upscaling, image).transpose(0, 1)
        pred_iou = _perceptron(decoder.iou_prediction_head, queries[:1])
        return _in_place(masks, side, side), pred_iou.reshape(4)


class PartOfMask(ClickGraph):
    """One of ClickDecoder's masks, drawn only at some cells of the embedding, on a grid of pixels.

    Past the attention every cell is drawn by itself, so a loss on a few pixels need not pay for all.
    """

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return rows @ low_res_masks[choice] @ columns.T.

        Args:
            inputs: the arguments of ClickDecoder; then choice, float32 [4], 1 for the mask and 0 for the others; rows,
                float32 [R, 4e]; columns, float32 [C, 4e]; cell_rows and cell_columns, int64 [r] and [c], the rows and
                columns of the embedding that these give a weight to, each once.

        Returns:
            float32 [R, C].
        """
        *prompt, choice, rows, columns, cell_rows, cell_columns = inputs
        queries, image = self.attended(prompt)
        side, down, across = self.dense_pe.shape[-1], cell_rows.shape[0], cell_columns.shape[0]
        cells = (cell_rows[:, None] * side + cell_columns).reshape(-1)
        upscaled = _upscale(self.decoder.output_upscaling, image[cells])
        mask = (choice[None] @ self.kernels(queries)) @ upscaled.transpose(0, 1)
        rows, columns = (
            weights.reshape(-1, side, 4)[:, cells].reshape(-1, 4 * cells.shape[0])
            for weights, cells in ((rows, cell_rows), (columns, cell_columns))
        )
        return rows @ _in_place(mask, down, across)[0] @ columns.transpose(0, 1)


class PlainClickDecoder(PromptEmbedder):
    """Gives ClickDecoder's answer with segment_anything's own mask decoder."""

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Take ClickDecoder's arguments and give its answer."""
        masks, pred_iou = self.decoder.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self.dense_pe,
            sparse_prompt_embeddings=self.embed_prompts(point_coords, point_labels),
            dense_prompt_embeddings=self.embed_mask(mask_input, has_mask_input),
        )
        return masks[0], pred_iou[0]


def _layer(layer: Any, queries: Tensor, image: Tensor, tokens: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Run one two-way layer on queries [T, C] and the image [N, C]. Source: TwoWayAttentionBlock."""
    if layer.skip_first_layer_pe:
        queries = _attend(layer.self_attn, queries, queries, queries)
    else:
        placed = queries + tokens
        queries = queries + _attend(layer.self_attn, placed, placed, queries)
    queries = _norm(layer.norm1, queries)
    queries = _norm(
        layer.norm2, queries + _attend(layer.cross_attn_token_to_image, queries + tokens, image + place, image)
    )
    hidden = _linear(layer.mlp.lin1, queries).relu()
    queries = _norm(layer.norm3, queries + _linear(layer.mlp.lin2, hidden))
    written = _attend(layer.cross_attn_image_to_token, image + place, queries + tokens, queries)
    return queries, _norm(layer.norm4, image + written)


def _attend(attention: Any, asking: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the attention of [T, C] on [N, C]."""
    heads = attention.num_heads
    own = heads_apart(_linear(attention.q_proj, asking), heads)
    # A key's bias adds the same to all shares of a query, which changes none. Its gradient is 0 but for roundings, and
    # Adam would make whole steps of those.
    bias = attention.k_proj.bias.detach()
    theirs = heads_apart(keys @ attention.k_proj.weight.transpose(0, 1) + bias, heads)
    shares = (own @ theirs.transpose(1, 2) / math.sqrt(own.shape[-1])).softmax(-1)
    seen = shares @ heads_apart(_linear(attention.v_proj, values), heads)
    return _linear(attention.out_proj, seen.transpose(0, 1).reshape(-1, attention.internal_dim))


def _linear(layer: Any, x: Tensor) -> Tensor:
    # Tracing the gradient of F.linear would fix the number of tokens.
    product: Tensor = x @ layer.weight.transpose(0, 1) + layer.bias
    return product


def _norm(layer: Any, x: Tensor) -> Tensor:
    """Apply LayerNorm over the last axis; also LayerNorm2d, whose channels come last here."""
    return F.layer_norm(x, layer.weight.shape, layer.weight, layer.bias, layer.eps)


def _perceptron(mlp: Any, x: Tensor) -> Tensor:
    *hidden, last = mlp.layers
    for layer in hidden:
        x = _linear(layer, x).relu()
    return _linear(last, x)


def _upscale(upscaling: Any, image: Tensor) -> Tensor:
    """Map [N, C] to [16 N, C / 8]: the sixteen pixels of every cell, in the order that _in_place expects."""
    first, norm, _, second, _ = upscaling
    image = F.gelu(_norm(norm, _deconvolve(first, image)))
    return F.gelu(_deconvolve(second, image))


def _deconvolve(layer: Any, image: Tensor) -> Tensor:
    """Apply a transposed convolution of size and stride 2 to [N, C]: [4 N, C'], four pixels for each, in a row."""
    channels, out = layer.weight.shape[:2]
    # The weights are moved, and not the pixels, which are many more.
    weight = layer.weight.permute(0, 2, 3, 1).reshape(channels, 4 * out)
    pixels: Tensor = (image @ weight).reshape(-1, out) + layer.bias
    return pixels


def _in_place(masks: Tensor, down: int, across: int) -> Tensor:
    """Map masks [M, 16 N] of down x across cells, with pixels in the order of _upscale, to [M, 4 down, 4 across]."""
    # Row and column of the cell, then of its quarter, then of the pixel in it.
    pixels = masks.reshape(-1, down, across, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
    return pixels.reshape(-1, 4 * down, 4 * across)
