"""SAM's mask decoder in three graphs that never hold an image per prompt, exact in real arithmetic.

Upstream repeats the image embedding for every prompt and projects its N = e * e vectors again and again. But a prompt
changes them in few directions only. With S the shared embedding, the keys before layer l are, at every place n,

    keys = gain_0[n] * S_l + sum over layers j < l of gain_j[n] * (A_j[:, n] @ B_j) + constant

- Attention from the image to the T tokens adds A_j[:, n] @ B_j, with A_j the softmax over tokens, J = heads * T rows,
  and B_j = v @ W_out, one row per head and token. The softmax of each head sums to one, so the constants that attention
  and the norm before it add are spread over the rows of B_j.
- LayerNorm takes the mean off every row of S and B, once per image and per prompt, not per place. The mean square at
  every place remains: it follows from S . S, S . B (shared projections) and the Gram matrices of the B. The norm then
  multiplies all gains by 1 / sigma, and its weight goes into S and B.
- Every projection of the keys is the projection of S, shared by all prompts, and of the B.

So `image_side` runs once per image, `token_side` per batch of prompts, and `upscale` for those prompts only whose
predicted IoU passed: that depends on the IoU token alone.

Source: our own derivation from segment_anything's modeling/transformer.py and mask_decoder.py, which define the answer.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.graphs.decoder import DecoderGraph, heads_apart

Shared = dict[str, Tensor]
Layers = Any  # an nn.ModuleList of TwoWayAttentionBlocks, of which torch knows only that they are modules


class ImageSide(nn.Module):
    """Computes the decoder's part that depends on the image alone; `names` are those of the outputs, in order.

    Per layer l: key_l, query_l float32 [h, d, N] and value_l [h, N, d], projections of the shared embedding by the
    token-to-image and the image-to-token attention; key_place_l, query_place_l, the positional encoding's part (from
    layer 1 on; within key_0 and query_0); overlap_l_j [h, d, N], the embedding against the output projection of layer
    j <= l; moments_l [2 + l, N]: its mean square with the mean taken off, and twice its mean product with the constants
    that the layers j <= l write. Then key, value and place of the final attention, and pixels [N, C], the first
    transposed convolution.
    """

    no_mask: Tensor
    place: Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        decoder = sam.mask_decoder
        self.layers = decoder.transformer.layers
        self.final = decoder.transformer.final_attn_token_to_image
        self.up = decoder.output_upscaling[0]
        self.register_buffer("no_mask", sam.prompt_encoder.no_mask_embed.weight.detach()[0], persistent=False)
        place = sam.prompt_encoder.get_dense_pe().detach()[0].flatten(1).T
        self.register_buffer("place", place.contiguous(), persistent=False)
        self.names = tuple(self._compute(torch.zeros(1, place.shape[1], 1, place.shape[0])))

    def forward(self, image_embeddings: Tensor) -> tuple[Tensor, ...]:
        """Map float32 [1, C, e, e] to the shared tensors, in the order of `names`."""
        return tuple(self._compute(image_embeddings).values())

    def _compute(self, image_embeddings: Tensor) -> Shared:
        embedding = image_embeddings[0].flatten(1).T + self.no_mask
        channels = embedding.shape[1]
        shared: Shared = {}
        for index, layer in enumerate(self.layers):
            reading, writing = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            place = self.place + _constant(self.layers, index)
            _project(shared, f"key_{index}", reading.k_proj, reading.num_heads, embedding, place, index == 0)
            _project(shared, f"query_{index}", writing.q_proj, writing.num_heads, embedding, place, index == 0)
            shared[f"value_{index}"] = heads_apart(embedding @ reading.v_proj.weight.T, reading.num_heads)
            centred = _centred(embedding)
            moments = [centred.square().mean(1)]
            for other in range(index + 1):
                attention, onto = self.layers[other].cross_attn_image_to_token, centred
                for between in self.layers[other:index][::-1]:  # the norms since act on B; here they act on S instead
                    onto = _centred(onto * between.norm4.weight)
                overlap = onto @ attention.out_proj.weight / channels
                shared[f"overlap_{index}_{other}"] = heads_apart(overlap, attention.num_heads).transpose(1, 2)
                moments.append(2 * (onto @ _written_constant(self.layers, other)) / channels)
            shared[f"moments_{index}"] = torch.stack(moments)
            embedding = centred * layer.norm4.weight
        place = self.place + _constant(self.layers, len(self.layers))
        _project(shared, "key_final", self.final.k_proj, self.final.num_heads, embedding, place, False)
        shared["value_final"] = heads_apart(embedding @ self.final.v_proj.weight.T, self.final.num_heads)
        shared["pixels"] = embedding @ _as_matrix(self.up)
        return shared


class TokenSide(nn.Module):
    """Maps prompts to predicted IoUs, and to the state that `Upscale` needs for the masks.

    The inputs after the prompts are the shared tensors named in `names`; `outputs` names the outputs.
    """

    def __init__(self, sam: Any, shared_names: tuple[str, ...]) -> None:
        super().__init__()
        self.prompts = DecoderGraph(sam)
        self.decoder = sam.mask_decoder
        self.names = tuple(name for name in shared_names if name != "pixels")
        self.outputs = ("pred_iou", "kernels", *_state_names(sam))

    def forward(self, point_coords: Tensor, point_labels: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take float32 [B, P, 2], [B, P] and the shared tensors.

        Returns:
            pred_iou [B, 3]; kernels [B, 3, C/8], a mask's weights of the upscaled channels; and the keys after the last
            layer: gains [B, L, N], then shares_j [B, J, N] of every layer, then basis_j [B, J, C] of every layer.
        """
        shared = dict(zip(self.names, tensors, strict=True))
        decoder, transformer = self.decoder, self.decoder.transformer
        prompts = self.prompts.embed_prompts(point_coords, point_labels)
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output_tokens[None].expand(prompts.shape[0], -1, -1), prompts], dim=1)
        queries, keys = tokens, _Keys(transformer.layers, shared)
        for layer in transformer.layers:
            if layer.skip_first_layer_pe:
                queries = layer.self_attn(q=queries, k=queries, v=queries)
            else:
                placed = queries + tokens
                queries = queries + layer.self_attn(q=placed, k=placed, v=queries)
            queries = layer.norm1(queries)
            queries = layer.norm2(queries + keys.read(layer.cross_attn_token_to_image, queries + tokens))
            queries = layer.norm3(queries + layer.mlp(queries))
            keys.write(layer, queries, tokens)
        queries = queries + keys.read(transformer.final_attn_token_to_image, queries + tokens)
        queries = transformer.norm_final_attn(queries)
        # Token 0 is the IoU's, token 1 the single mask's, which multimask output drops.
        kernels = [decoder.output_hypernetworks_mlps[i](queries[:, 1 + i]) for i in (1, 2, 3)]
        pred_iou = decoder.iou_prediction_head(queries[:, 0])[:, 1:]
        return pred_iou, torch.stack(kernels, dim=1), torch.cat(keys.gains, 1), *keys.shares, *keys.bases


class Upscale(nn.Module):
    """Draws the masks of prompts that passed: k of each prompt's three, the same k for every prompt of a call.

    `inputs` names the inputs.
    """

    bias: Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        layers = sam.mask_decoder.transformer.layers
        self.depth = len(layers)
        self.first, self.norm, _, self.second, _ = sam.mask_decoder.output_upscaling
        self.side = int(sam.prompt_encoder.image_embedding_size[0])
        constant = _constant(layers, self.depth) @ _as_matrix(self.first)
        self.register_buffer("bias", (constant + self.first.bias.repeat(4)).detach(), persistent=False)
        self.inputs = ("pixels", "kernels", *_state_names(sam))

    def forward(self, pixels: Tensor, kernels: Tensor, gains: Tensor, *state: Tensor) -> Tensor:
        """Map [N, C], [B, k, C/8] and the state that TokenSide returns to low_res_masks float32 [B, k, 4e, 4e]."""
        shares, bases = state[: self.depth], state[self.depth :]
        # The bias is one row more: the product adds it for less than a pass over all pixels.
        rows = [*(gains[:, j : j + 1] * share for j, share in enumerate(shares)), torch.ones_like(gains[:, :1])]
        basis = [torch.cat(bases, 1) @ _as_matrix(self.first), self.bias.expand(gains.shape[0], 1, -1)]
        x = gains[:, :1].transpose(1, 2) * pixels + torch.cat(rows, 1).transpose(1, 2) @ torch.cat(basis, 1)
        x = x.reshape(-1, self.norm.weight.shape[0])  # one row for each of the 2 x 2 pixels of a place
        x = functional.gelu(functional.layer_norm(x, x.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps))
        # In two dimensions, so that the export has one operator for product and bias.
        x = functional.gelu(functional.linear(x, _as_matrix(self.second).T, self.second.bias.repeat(4)))
        x = x.reshape(gains.shape[0], -1, kernels.shape[2])
        masks = (kernels @ x.transpose(1, 2)).reshape(-1, kernels.shape[1], self.side, self.side, 2, 2, 2, 2)
        # y is (place, first step, second step), x likewise.
        return masks.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(-1, kernels.shape[1], 4 * self.side, 4 * self.side)


class _Keys:
    """The image's vectors as a batch of prompts has changed them; see the module's docstring.

    gains: [B, 1, N] per layer so far; shares: A_j [B, J, N]; bases: B_j [B, J, C].
    """

    def __init__(self, layers: Layers, shared: Shared) -> None:
        self._layers = layers
        self._shared = shared
        self._values: list[Tensor] = []  # per layer so far, v of the tokens [B, h, T, d]
        self.gains: list[Tensor] = []
        self.shares: list[Tensor] = []
        self.bases: list[Tensor] = []

    def read(self, attention: Any, queries: Tensor) -> Tensor:
        """Return the attention of the tokens to the image, [B, T, C]."""
        heads, index, weight = attention.num_heads, len(self.gains), attention.v_proj.weight.T
        name = str(index) if index < len(self._layers) else "final"
        vectors = heads_apart(attention.q_proj(queries), heads)
        attended = self._against(vectors, attention.k_proj, f"key_{name}").softmax(-1)
        if not self.gains:
            found = attended @ self._shared[f"value_{name}"]
        else:
            found = (attended * self.gains[0][:, None]) @ self._shared[f"value_{name}"]
            for gain, shares, basis in zip(self.gains, self.shares, self.bases, strict=True):
                summed = (attended * gain[:, None]).flatten(1, 2) @ shares.transpose(1, 2)
                summed = summed.reshape(*attended.shape[:3], -1)
                found = found + summed @ heads_apart(basis @ weight, heads)
        bias = _constant(self._layers, index) @ weight + attention.v_proj.bias
        seen: Tensor = attention.out_proj(found.transpose(1, 2).flatten(2) + bias)  # the shares sum to one
        return seen

    def write(self, layer: Any, queries: Tensor, tokens: Tensor) -> None:
        """Apply the attention of the image to the tokens, and norm4."""
        attention, norm, index = layer.cross_attn_image_to_token, layer.norm4, len(self.gains)
        vectors = heads_apart(attention.k_proj(queries + tokens), attention.num_heads)
        shares = _softmax_over_tokens(self._against(vectors, attention.q_proj, f"query_{index}")).flatten(1, 2)
        values = heads_apart(attention.v_proj(queries), attention.num_heads)
        output = attention.out_proj.weight.T.reshape(attention.num_heads, values.shape[-1], -1)
        basis = (values @ output).flatten(1, 2) + _written_constant(self._layers, index) / attention.num_heads
        self._values.append(values)
        self.shares.append(shares)
        self.bases = [_centred(basis) for basis in (*self.bases, basis)]
        inverse = torch.rsqrt(self._mean_square() + norm.eps)
        self.gains = [*(gain * inverse for gain in self.gains), inverse]
        self.bases = [basis * norm.weight for basis in self.bases]

    def _against(self, vectors: Tensor, projection: nn.Linear, name: str) -> Tensor:
        """Multiply [B, h, T, d] with the projected keys plus their places, over sqrt(d): [B, h, T, N]."""
        vectors, weight = vectors / math.sqrt(vectors.shape[-1]), projection.weight.T
        scores = vectors @ self._shared[name]
        for index, (gain, shares, basis) in enumerate(zip(self.gains, self.shares, self.bases, strict=True)):
            projected = heads_apart(basis @ weight, vectors.shape[1])
            added = ((vectors @ projected.transpose(2, 3)).flatten(1, 2) @ shares).reshape(scores.shape)
            scores = scores + added * gain[:, None] if index else (scores + added) * gain[:, None]
        return scores + vectors @ self._shared[name.replace("_", "_place_")] if self.gains else scores

    def _mean_square(self) -> Tensor:
        """Return the keys' mean square over channels, with a new layer written and the mean taken off: [B, 1, N]."""
        moments = self._shared[f"moments_{len(self.gains)}"]
        gains: list[Tensor | None] = [*self.gains, None]  # that of the new layer is one
        total = _times(_times(moments[0], gains[0]), gains[0])
        for row, (shares, values, gain) in enumerate(zip(self.shares, self._values, gains, strict=True)):
            # Twice the embedding's mean products with the rows, without their constants: those are in `moments`.
            with_shared = ((2 * values) @ self._shared[f"overlap_{len(self.gains)}_{row}"]).flatten(1, 2)
            inner = self._gram(row, row) @ shares
            if row == 0:
                inner = inner + with_shared
                part = _times((shares * inner).sum(1, keepdim=True) + moments[1], gain)
            else:
                inner = _times(inner, gain) + _times(with_shared + 2 * self._gram(row, 0) @ self.shares[0], gains[0])
                for other in range(1, row):
                    inner = inner + _times(2 * self._gram(row, other) @ self.shares[other], gains[other])
                part = (shares * inner).sum(1, keepdim=True) + _times(moments[1 + row], gains[0])
            total = total + _times(part, gain)
        return total

    def _gram(self, row: int, column: int) -> Tensor:
        """Return the mean products over channels of two layers' bases, [B, J, J]."""
        return self.bases[row] @ self.bases[column].transpose(1, 2) / self.bases[row].shape[2]


def _project(
    shared: Shared, name: str, linear: nn.Linear, heads: int, embedding: Tensor, place: Tensor, together: bool
) -> None:
    """Project the embedding and its place, [h, d, N]: `together` as long as the embedding has no gain."""
    weight = linear.weight.T  # transposed once: the export keeps one copy
    projected, places = embedding @ weight, place @ weight + linear.bias
    if together:
        projected = projected + places
    else:
        shared[name.replace("_", "_place_")] = heads_apart(places, heads).transpose(1, 2)
    shared[name] = heads_apart(projected, heads).transpose(1, 2)


def _state_names(sam: Any) -> tuple[str, ...]:
    """Return the names of the state that `TokenSide` hands to `Upscale`."""
    layers = range(len(sam.mask_decoder.transformer.layers))
    return "gains", *(f"shares_{index}" for index in layers), *(f"basis_{index}" for index in layers)


def _constant(layers: Layers, index: int) -> Tensor:
    """Return the constant that all keys share before a layer, [C]."""
    bias: Tensor = layers[index - 1].norm4.bias if index else torch.zeros_like(layers[0].norm4.bias)
    return bias


def _written_constant(layers: Layers, index: int) -> Tensor:
    """Return the constant that a layer's image attention adds to every key, plus the one they shared before: [C]."""
    constant: Tensor = _constant(layers, index) + layers[index].cross_attn_image_to_token.out_proj.bias
    return constant


def _centred(rows: Tensor) -> Tensor:
    """Take off the mean over channels, the last axis."""
    return rows - rows.mean(-1, keepdim=True)


def _softmax_over_tokens(scores: Tensor) -> Tensor:
    """Return the softmax over axis T of [B, h, T, N]. ONNX Runtime's own takes three times as long on an inner axis."""
    exponentials = (scores - scores.amax(2, keepdim=True)).exp()
    return exponentials / exponentials.sum(2, keepdim=True)


def _times(x: Tensor, gain: Tensor | None) -> Tensor:
    """Multiply by a gain; None is a gain of one."""
    return x if gain is None else x * gain


def _as_matrix(convolution: nn.ConvTranspose2d) -> Tensor:
    """Return [in, 4 * out] of a transposed convolution with kernel and stride 2: a pixel's part in its 2 x 2 square."""
    return convolution.weight.permute(0, 2, 3, 1).flatten(1)
