"""SAM's mask decoder in three graphs that never hold an image per prompt, exact in real arithmetic.

Upstream repeats the image embedding for every prompt and projects its N = e * e vectors again and again. But a prompt
changes them in few directions only. With S the shared embedding, the keys before layer l are, at every place n,

    keys = scale[n] * S_l + coefficients[:, n] @ basis + constant

where S_l is S times the weights of the norms so far and `basis` has a few rows per token:

- Attention from the image to the T tokens adds A[n] @ U, with A the softmax over tokens and U = v @ W_out, one row per
  head and token. So the basis grows by J = heads * T rows and the coefficients by A.
- LayerNorm needs mean and variance only, and both follow from S . S and S . basis (shared projections) and the Gram
  matrix of the basis. Then it rescales: scale and coefficients by 1 / sigma, and one row more for the mean.
- Every projection of the keys is the projection of S, shared by all prompts, and of the basis.

So `image_side` runs once per image, `token_side` per batch of prompts, and `upscale` for those prompts only whose
predicted IoU passed: that depends on the IoU token alone.

Source: our own derivation from segment_anything's modeling/transformer.py and mask_decoder.py, which define the answer.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.sam import DecoderGraph

Shared = dict[str, Tensor]


class ImageSide(nn.Module):
    """What the decoder computes from the image alone; `names` are those of the outputs, in order.

    Per layer l: key_l, query_l float32 [h, d, N] and value_l [h, N, d], projections of the shared embedding by the
    token-to-image and the image-to-token attention; key_place_l, query_place_l, what the positional encoding adds
    (from layer 1 on); overlap_l_j [h, d, N], the embedding against the output projection of layer j <= l; moments_l
    [2 + rows, N]: its mean, its mean square and its mean product with every constant row of the basis. Then key, value
    and place of the final attention, and pixels [N, C], the first transposed convolution.
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
        """float32 [1, C, e, e] -> the shared tensors, in the order of `names`."""
        return tuple(self._compute(image_embeddings).values())

    def _compute(self, image_embeddings: Tensor) -> Shared:
        embedding = image_embeddings[0].flatten(1).T + self.no_mask
        channels = embedding.shape[1]
        shared: Shared = {}
        for index, layer in enumerate(self.layers):
            frame = _Frame(self.layers, index)
            scaled = embedding * frame.weight
            reading, writing = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            _project(shared, f"key_{index}", reading.k_proj, reading.num_heads, scaled, self.place, frame)
            _project(shared, f"query_{index}", writing.q_proj, writing.num_heads, scaled, self.place, frame)
            shared[f"value_{index}"] = _heads(scaled @ reading.v_proj.weight.T, reading.num_heads)
            for other in range(index + 1):
                attention = self.layers[other].cross_attn_image_to_token
                onto = (scaled * frame.weight_since(other)) @ attention.out_proj.weight / channels
                shared[f"overlap_{index}_{other}"] = _heads(onto, attention.num_heads).transpose(1, 2)
            rows = torch.stack([*frame.rows, frame.constant + writing.out_proj.bias])
            moments = [scaled.mean(1)[None], scaled.square().mean(1)[None], rows @ scaled.T / channels]
            shared[f"moments_{index}"] = torch.cat(moments)
        frame = _Frame(self.layers, len(self.layers))
        scaled = embedding * frame.weight
        _project(shared, "key_final", self.final.k_proj, self.final.num_heads, scaled, self.place, frame)
        shared["value_final"] = _heads(scaled @ self.final.v_proj.weight.T, self.final.num_heads)
        shared["pixels"] = scaled @ _as_matrix(self.up)
        return shared


class TokenSide(nn.Module):
    """Prompts to predicted IoUs, and to what `Upscale` needs for the masks.

    The inputs after the prompts are the shared tensors named in `names`.
    """

    def __init__(self, sam: Any, shared_names: tuple[str, ...]) -> None:
        super().__init__()
        self.prompts = DecoderGraph(sam)
        self.decoder = sam.mask_decoder
        self.names = tuple(name for name in shared_names if name != "pixels")

    def forward(
        self, point_coords: Tensor, point_labels: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """float32 [B, P, 2], [B, P] and the shared tensors.

        Returns:
            pred_iou [B, 3]; kernels [B, 3, C/8], a mask's weights of the upscaled channels; scale [B, 1, N],
            coefficients [B, R, N] and basis [B, R, C], the keys after the last layer.
        """
        shared = dict(zip(self.names, tensors, strict=True))
        decoder, transformer = self.decoder, self.decoder.transformer
        prompts = self.prompts.embed_prompts(point_coords, point_labels)
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output_tokens[None].expand(prompts.shape[0], -1, -1), prompts], dim=1)
        queries, keys = tokens, _Keys(transformer.layers)
        for layer in transformer.layers:
            if layer.skip_first_layer_pe:
                queries = layer.self_attn(q=queries, k=queries, v=queries)
            else:
                placed = queries + tokens
                queries = queries + layer.self_attn(q=placed, k=placed, v=queries)
            queries = layer.norm1(queries)
            queries = layer.norm2(queries + keys.read(layer.cross_attn_token_to_image, queries + tokens, shared))
            queries = layer.norm3(queries + layer.mlp(queries))
            keys = keys.written(layer, queries, tokens, shared)
        queries = queries + keys.read(transformer.final_attn_token_to_image, queries + tokens, shared)
        queries = transformer.norm_final_attn(queries)
        # Token 0 is the IoU's, token 1 the single mask's, which multimask output drops.
        kernels = [decoder.output_hypernetworks_mlps[i](queries[:, 1 + i]) for i in (1, 2, 3)]
        pred_iou = decoder.iou_prediction_head(queries[:, 0])[:, 1:]
        return pred_iou, torch.stack(kernels, dim=1), keys.scale, keys.coefficients, keys.basis


class Upscale(nn.Module):
    """The masks of prompts that passed: k of each prompt's three, the same k for every prompt of a call."""

    bias: Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        layers = sam.mask_decoder.transformer.layers
        self.first, self.norm, _, self.second, _ = sam.mask_decoder.output_upscaling
        self.side = int(sam.prompt_encoder.image_embedding_size[0])
        constant = _Frame(layers, len(layers)).constant @ _as_matrix(self.first)
        self.register_buffer("bias", (constant + self.first.bias.repeat(4)).detach(), persistent=False)

    def forward(self, pixels: Tensor, scale: Tensor, coefficients: Tensor, basis: Tensor, kernels: Tensor) -> Tensor:
        """[N, C], [B, 1, N], [B, R, N], [B, R, C], [B, k, C/8] -> low_res_masks float32 [B, k, 4e, 4e]."""
        basis = basis @ _as_matrix(self.first)
        x = scale.transpose(1, 2) * pixels + coefficients.transpose(1, 2) @ basis + self.bias
        x = x.reshape(x.shape[0], -1, self.norm.weight.shape[0])  # one row for each of the 2 x 2 pixels of a place
        x = functional.gelu(functional.layer_norm(x, x.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps))
        x = functional.gelu(x @ _as_matrix(self.second) + self.second.bias.repeat(4))
        x = x.reshape(x.shape[0], -1, kernels.shape[2])
        masks = (kernels @ x.transpose(1, 2)).reshape(-1, kernels.shape[1], self.side, self.side, 2, 2, 2, 2)
        # y is (place, first step, second step), x likewise.
        return masks.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(-1, kernels.shape[1], 4 * self.side, 4 * self.side)


class _Frame:
    """What the norms before layer `index` have made of the constants: weight, constant and constant rows, all [C]."""

    def __init__(self, layers: nn.ModuleList, index: int) -> None:
        channels = layers[0].norm4.weight.shape[0]
        self._before = [layer.norm4.weight for layer in layers[:index]]
        self.weight = self.weight_since(0) if index else torch.ones(channels)
        self.constant = torch.zeros(channels)
        self.rows: list[Tensor] = []
        for layer in layers[:index]:
            norm = layer.norm4
            before = self.constant + layer.cross_attn_image_to_token.out_proj.bias
            self.rows = [row * norm.weight for row in (*self.rows, before)] + [norm.weight]
            self.constant = norm.bias

    def weight_since(self, layer: int) -> Tensor:
        """Product of the norms' weights from a layer on."""
        product = torch.ones(())
        for weight in self._before[layer:]:
            product = product * weight
        return product


class _Keys:
    """The image's vectors as a batch of prompts has changed them; see the module's docstring."""

    def __init__(self, layers: nn.ModuleList) -> None:
        self._layers = layers
        self._index = 0
        self._values: list[Tensor] = []  # per layer so far, v of the tokens [B, h, T, d]
        self.scale = self.coefficients = self.basis = torch.empty(0)

    def _against(self, vectors: Tensor, projection: nn.Linear, name: str, shared: Shared) -> Tensor:
        """[B, h, T, d] against the projected keys plus their places: [B, h, T, N]."""
        scores = vectors @ shared[name]
        if self._index == 0:
            return scores
        places = vectors @ shared[name.replace("_", "_place_")]
        basis = _heads(self.basis @ projection.weight.T, vectors.shape[1])
        low_rank = (vectors @ basis.transpose(2, 3)).flatten(1, 2) @ self.coefficients
        return self.scale[:, None] * scores + places + low_rank.reshape(scores.shape)

    def read(self, attention: Any, queries: Tensor, shared: Shared) -> Tensor:
        """Attention of the tokens to the image, [B, T, C]."""
        heads, final = attention.num_heads, self._index == len(self._layers)
        name = "final" if final else str(self._index)
        vectors = _heads(attention.q_proj(queries), heads)
        vectors = vectors / math.sqrt(vectors.shape[-1])
        shares = self._against(vectors, attention.k_proj, f"key_{name}", shared).softmax(-1)
        constant = _Frame(self._layers, self._index).constant
        bias = constant @ attention.v_proj.weight.T + attention.v_proj.bias
        if self._index == 0:
            found = shares @ shared[f"value_{name}"]
        else:
            basis = _heads(self.basis @ attention.v_proj.weight.T, heads)
            summed = shares.flatten(1, 2) @ self.coefficients.transpose(1, 2)
            summed = summed.reshape(*shares.shape[:3], -1)
            found = (shares * self.scale[:, None]) @ shared[f"value_{name}"] + summed @ basis
        return attention.out_proj(found.transpose(1, 2).flatten(2) + bias)  # shares sum to one

    def written(self, layer: Any, queries: Tensor, tokens: Tensor, shared: Shared) -> "_Keys":
        """The keys after attention of the image to the tokens, and norm4."""
        attention, norm, index = layer.cross_attn_image_to_token, layer.norm4, self._index
        vectors = _heads(attention.k_proj(queries + tokens), attention.num_heads)
        vectors = vectors / math.sqrt(vectors.shape[-1])
        shares = self._against(vectors, attention.q_proj, f"query_{index}", shared).softmax(2)
        values = _heads(attention.v_proj(queries), attention.num_heads)
        width = values.shape[-1]
        output = attention.out_proj.weight.T.reshape(attention.num_heads, width, -1)
        frame = _Frame(self._layers, index)
        constant = (frame.constant + attention.out_proj.bias).expand(queries.shape[0], 1, -1)
        ones = torch.ones_like(shares[:, 0, :1])
        basis = [(values @ output).flatten(1, 2), constant]
        coefficients = [shares.flatten(1, 2), ones]
        if index:
            basis, coefficients = [self.basis, *basis], [self.coefficients, *coefficients]
        result = _Keys(self._layers)
        result._index, result._values = index + 1, [*self._values, values]
        stacked, rows = torch.cat(basis, 1), torch.cat(coefficients, 1)
        mean, square = self._moments(stacked, rows, result._values, shared)
        inverse = torch.rsqrt(square - mean.square() + norm.eps)
        result.scale = inverse * self.scale if index else inverse
        result.coefficients = torch.cat([rows * inverse, -mean * inverse], 1)
        result.basis = torch.cat([stacked * norm.weight, norm.weight.expand(queries.shape[0], 1, -1)], 1)
        return result

    def _moments(
        self, basis: Tensor, coefficients: Tensor, values: list[Tensor], shared: Shared
    ) -> tuple[Tensor, Tensor]:
        """Mean and mean square over channels of scale * S + coefficients @ basis: [B, 1, N] each."""
        index = self._index
        moments = shared[f"moments_{index}"]
        constant = moments[2:].expand(basis.shape[0], -1, -1)
        overlap = []  # mean product of S with every row of the basis, in the order in which the basis has grown
        for other, value in enumerate(values):
            rows = 2 if other < index else 1  # the norm of this layer has not added its own yet
            overlap += [(value @ shared[f"overlap_{index}_{other}"]).flatten(1, 2)]
            overlap += [constant[:, 2 * other : 2 * other + rows]]
        products = torch.cat(overlap, 1)
        gram = basis @ basis.transpose(1, 2) / basis.shape[2]
        mean = basis.mean(2)[:, None] @ coefficients
        if index:
            products = products * self.scale
            mean = mean + self.scale * moments[0]
            square = self.scale.square() * moments[1]
        else:
            mean = mean + moments[0]
            square = moments[1]
        return mean, square + (coefficients * (2 * products + gram @ coefficients)).sum(1, keepdim=True)


def _heads(x: Tensor, heads: int) -> Tensor:
    """[..., n, h * d] -> [..., h, n, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def _project(
    shared: Shared, name: str, linear: nn.Linear, heads: int, scaled: Tensor, place: Tensor, frame: _Frame
) -> None:
    """Projection of the embedding [h, d, N] under `name`, and of its place as well: apart, once it has a scale."""
    projected = scaled @ linear.weight.T
    places = (place + frame.constant) @ linear.weight.T + linear.bias
    if frame.rows:
        shared[name.replace("_", "_place_")] = _heads(places, heads).transpose(1, 2)
    else:
        projected = projected + places
    shared[name] = _heads(projected, heads).transpose(1, 2)


def _as_matrix(convolution: nn.ConvTranspose2d) -> Tensor:
    """[in, 4 * out] of a transposed convolution with kernel and stride 2: what a pixel adds to its 2 x 2 square."""
    return convolution.weight.permute(0, 2, 3, 1).flatten(1)
