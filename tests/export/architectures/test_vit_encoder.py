"""The banded ViT against segment_anything's."""

import msgspec
import pytest

torch = pytest.importorskip("torch")

from typing import Any

from maskrt.export.architectures.sam import SamConfig, build_sam
from maskrt.export.architectures.vit_encoder import BandedViT

TOLERANCE = 1e-5


@pytest.mark.parametrize("image_size", [64, 112, 160])  # 4, 7 and 10 cells a side
@pytest.mark.parametrize("window_size", [3, 4, 7, 14])  # divides the side, does not, is larger than it
@pytest.mark.parametrize("max_scores", [1, 2000, 1 << 24])  # a row at a time, some rows, all in one
def test_equals_upstream(image_size: int, window_size: int, max_scores: int) -> None:
    torch.manual_seed(image_size + window_size)
    sizes: dict[str, Any] = {"prompt_dim": 32, "embed_dim": 48, "depth": 3, "heads": 3, "global_attn_indexes": (1,)}
    config = SamConfig(image_size=image_size, window_size=window_size, decoder_heads=2, **sizes)
    encoder = build_sam(config).image_encoder
    with torch.no_grad():
        for parameter in encoder.parameters():  # upstream starts position embeddings at zero, which would hide them
            parameter.normal_(std=0.2)
        pixels = torch.randn(2, 3, image_size, image_size)
        expected, found = encoder(pixels), BandedViT(encoder, max_scores)(pixels)
    assert expected.abs().max() > 0.1
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_bands_divide_the_height() -> None:
    config = SamConfig(prompt_dim=32, embed_dim=32, depth=1, heads=2, decoder_heads=2)
    banded = BandedViT(build_sam(config).image_encoder, max_scores=1000)
    assert [banded._rows(12, score) for score in (10, 100, 249, 251, 2000)] == [12, 6, 4, 3, 1]


def test_bands_of_a_batch_are_those_of_one_image() -> None:
    """The graph has them fixed, whatever the batch that it was traced with."""
    config = SamConfig(image_size=160, prompt_dim=32, embed_dim=32, depth=1, heads=2, decoder_heads=2)
    seen: list[int] = []

    class Watched(BandedViT):
        def _rows(self, height: int, scores_per_row: int) -> int:
            seen.append(scores_per_row)
            return super()._rows(height, scores_per_row)

    for window_size in (0, 4):
        encoder = build_sam(msgspec.structs.replace(config, window_size=window_size)).image_encoder
        for count in (1, 3):
            with torch.no_grad():
                Watched(encoder)(torch.zeros(count, 3, 160, 160))
    cells, windows = 100, 9
    assert seen == [2 * 10 * cells] * 2 + [windows * 2 * 4 * 16] * 2
