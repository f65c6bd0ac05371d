"""SAM's ViT, arranged so that no attention matrix exists whole.

At 1024 pixels a global layer of ViT-B compares 4096 cells with 4096 in 12 heads: 805 MB as one matrix, and several
copies of it while the relative positions are added. Here a band of rows asks at a time, and its scores are gone before
the next band's are made; the sums over keys are the same. And windows that stick out of the frame are padded behind
the projection to queries, keys and values instead of before it: a padded cell is zero, so its projection is the bias.

Source: segment_anything's ImageEncoderViT defines the answer.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_SCORES = 1 << 24  # of one band of one image: 64 MB; bands of 4 rows for ViT-B


class BandedViT(nn.Module):
    """Has the weights, and gives the embedding, of the ImageEncoderViT it is made from.

    A band has as many rows for a batch of images as for one: its height is fixed at export, the batch is not.
    """

    def __init__(self, encoder: Any, max_scores: int = MAX_SCORES) -> None:
        super().__init__()
        self.encoder = encoder
        self.img_size = encoder.img_size
        self.max_scores = max_scores

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [B, 3, S, S] to [B, C, S / patch, S / patch]."""
        encoder = self.encoder
        x = encoder.patch_embed(x)
        if encoder.pos_embed is not None:
            x = x + encoder.pos_embed
        for block in encoder.blocks:
            x = x + self._attend(block, block.norm1(x))
            x = x + block.mlp(block.norm2(x))
        embedding: Tensor = encoder.neck(x.permute(0, 3, 1, 2))
        return embedding

    def _attend(self, block: Any, x: Tensor) -> Tensor:
        attention, upstream = block.attn, sys.modules[type(block).__module__]
        frame_hw = x.shape[1], x.shape[2]
        if block.window_size:
            projected = functional.linear(x, attention.qkv.weight)
            windows, padded_hw = upstream.window_partition(projected, block.window_size)
            of_image = padded_hw[0] * padded_hw[1] // block.window_size**2
            read = self._read(attention, windows + attention.qkv.bias, of_image)
            read = upstream.window_unpartition(read, block.window_size, padded_hw, frame_hw)
        else:
            read = self._read(attention, attention.qkv(x), 1)
        attended: Tensor = attention.proj(read)
        return attended

    def _read(self, attention: Any, qkv: Tensor, of_image: int) -> Tensor:
        """Let every cell read its window's cells, band by band.

        Args:
            qkv: float32 [N, H, W, 3 C], the windows of all images.
            of_image: windows of one image.

        Returns:
            [N, H, W, C].
        """
        upstream = sys.modules[type(attention).__module__]
        _, height, width, channels = qkv.shape
        heads, cells, depth = attention.num_heads, height * width, channels // (3 * attention.num_heads)
        split = qkv.reshape(-1, cells, 3, heads, depth).permute(2, 0, 3, 1, 4)
        query, key, value = split.reshape(3, -1, cells, depth).unbind(0)
        placed = query.reshape(-1, height, width, depth)
        by_row = placed @ upstream.get_rel_pos(height, height, attention.rel_pos_h).transpose(1, 2)
        # Columns vary along the third axis: it goes first for the product, and back.
        of_columns = upstream.get_rel_pos(width, width, attention.rel_pos_w).transpose(1, 2)
        by_column = (placed.transpose(1, 2) @ of_columns).transpose(1, 2)
        scaled, turned = query * attention.scale, key.transpose(1, 2)
        rows, bands = self._rows(height, of_image * heads * width * cells), []
        for first in range(0, height, rows):
            band, asking = slice(first, first + rows), rows * width
            scores = (scaled[:, first * width : (first + rows) * width] @ turned).reshape(-1, asking, height, width)
            scores = scores + by_row[:, band].reshape(-1, asking, height, 1)
            scores = scores + by_column[:, band].reshape(-1, asking, 1, width)
            bands.append(scores.reshape(-1, asking, cells).softmax(-1) @ value)
        read = torch.cat(bands, 1).reshape(-1, heads, height, width, depth)
        return read.permute(0, 2, 3, 1, 4).reshape(-1, height, width, heads * depth)

    def _rows(self, height: int, scores_per_row: int) -> int:
        """Return a band's rows: the most that divide the height and stay within max_scores, at least one."""
        fitting = (n for n in range(height, 0, -1) if height % n == 0 and n * scores_per_row <= self.max_scores)
        return next(fitting, 1)
