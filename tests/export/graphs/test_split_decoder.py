"""The decoder's three graphs answer what the one answers: every size, depth, kind and number of prompts."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from tiny_sam import OFFICIAL

from maskrt.export.architectures.sam import SamConfig, build_sam
from maskrt.export.demo.model import DEMO_SAM
from maskrt.export.graph_tools.graph import check_equal
from maskrt.export.graphs.decoder import DecoderGraph
from maskrt.export.graphs.split_decoder import ImageSide, TokenSide, Upscale
from maskrt.runtime.bundle.specs import SamSpec
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import ExportError
from maskrt.runtime.sam.mask_decoder import SPLIT_DECODER, SplitDecoder, WholeDecoder


def prompts(config: SamConfig, count: int, points: int, seed: int) -> tuple[Any, Any, Any]:
    random = torch.Generator().manual_seed(seed)
    coords = torch.rand(count, points, 2, generator=random) * config.image_size
    labels = torch.randint(-1, 4, (count, points), generator=random).float()
    return torch.randn(config.embedding_shape, generator=random), coords, labels


@torch.no_grad()
def both(sam: Any, case: tuple[Any, Any, Any]) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(masks, pred_iou) of the three modules and of the one."""
    image_side = ImageSide(sam)
    token_side = TokenSide(sam, image_side.names)
    shared = dict(zip(image_side.names, image_side(case[0]), strict=True))
    found = token_side(*case[1:], *(shared[name] for name in token_side.names))
    values = shared | dict(zip(token_side.outputs, found, strict=True))
    upscale = Upscale(sam)
    side = sam.prompt_encoder.mask_input_size[0]
    whole = DecoderGraph(sam)(*case, torch.zeros(1, 1, side, side), torch.zeros(1))
    return (upscale(*(values[name] for name in upscale.inputs)), values["pred_iou"]), whole


def relative(found: Any, expected: Any) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("count", "points"), [(1, 1), (3, 2), (2, 11)])
def test_modules(tiny_config: SamConfig, scrambled: Any, depth: int, count: int, points: int) -> None:
    config = msgspec.structs.replace(tiny_config, decoder_depth=depth, prompt_dim=64)
    torch.manual_seed(depth)
    found, expected = both(scrambled(build_sam(config), depth), prompts(config, count, points, seed=depth))
    assert relative(found[0], expected[0]) < 1e-5
    assert (found[1] - expected[1]).abs().max() < 1e-6


@pytest.mark.parametrize("config", [OFFICIAL, DEMO_SAM], ids=["official", "demo"])
def test_sizes_that_are_deployed(config: SamConfig, scrambled: Any) -> None:
    torch.manual_seed(0)
    sam = scrambled(build_sam(config))
    for points in (1, 2, 10):
        found, expected = both(sam, prompts(config, 2, points, seed=points))
        assert relative(found[0], expected[0]) < 1e-5
        assert (found[1] - expected[1]).abs().max() < 1e-6


@pytest.mark.parametrize(("count", "points"), [(1, 1), (2, 4), (9, 2)])
def test_graphs_in_the_runtime(sam_graphs: dict[str, Path], tiny_config: SamConfig, count: int, points: int) -> None:
    """The wanted masks only, of every prompt those that are asked for."""
    spec = SamSpec(tiny_config.image_size, (tiny_config.low_res_size, tiny_config.low_res_size))
    wanted = np.random.default_rng(count).random((count, 3)) < 0.5
    wanted[0] = [False, True, False]
    embeddings, coords, labels = (value.numpy() for value in prompts(tiny_config, count, points, seed=count))
    found = []
    for decoder in (
        SplitDecoder(*(open_session(sam_graphs[role]) for role in SPLIT_DECODER), spec),
        WholeDecoder(open_session(sam_graphs["decoder"]), spec),
    ):
        image = decoder.prepare(embeddings)
        prompted = decoder.prompt(image, coords, labels)
        indices, masks = decoder.masks(image, prompted, wanted)
        assert indices.tolist() == np.flatnonzero(wanted).tolist()
        assert masks.flags.c_contiguous
        found.append((prompted.pred_iou, masks))
        assert decoder.masks(image, prompted, np.zeros_like(wanted))[1].shape == (0, *spec.low_res_hw)
    (iou, masks), (expected_iou, expected) = found
    assert np.abs(iou - expected_iou).max() < 1e-6
    assert np.abs(masks - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_difference_is_found() -> None:
    same = torch.ones(3)
    check_equal("x", (same,), (same,))
    for wrong in (same * 1.001, same * float("nan")):
        with pytest.raises(ExportError, match="differs from the plain network"):
            check_equal("x", (wrong,), (same,))
