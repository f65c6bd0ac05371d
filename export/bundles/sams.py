"""SAM's half of an export: read KIND:FILE as a network, and write the graphs of its encoder and decoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrt.export.architectures.configs import read_config
from maskrt.export.architectures.kinds import KNOWN, sam_architecture, split_kind
from maskrt.export.architectures.networks import load_network
from maskrt.export.architectures.sam import SAM_CONFIGS, EncoderGraph, SamConfig
from maskrt.export.architectures.vit_encoder import BandedViT
from maskrt.export.graph_tools.graph import MAX_IMAGES, Axes, OneByOne, check_equal, export_graph, output_shape
from maskrt.export.graphs.decoder import DECODER_INPUTS, DECODER_OUTPUTS, DecoderGraph, PlainDecoderGraph
from maskrt.export.graphs.split_decoder import ImageSide, TokenSide, Upscale
from maskrt.runtime.bundle.manifest import Parity
from maskrt.runtime.errors import InputError
from maskrt.runtime.sam.mask_decoder import MASKS_PER_POINT
from maskrt.runtime.types import Report

CUSTOM = "custom"
MAX_PROMPTS, MAX_POINTS = 4096, 1024
_PROMPTS, _POINTS = ("prompts", MAX_PROMPTS), ("points", MAX_POINTS)
PROMPT_AXES = {"point_coords": {0: _PROMPTS, 1: _POINTS}, "point_labels": {0: _PROMPTS, 1: _POINTS}}


def read_sam(spec: str, report: Report = lambda _: None) -> tuple[Any, SamConfig]:
    """Read the network of "vit_b:FILE", "vit_l:FILE", "vit_h:FILE" or "custom:FILE", in evaluation mode, and its sizes.

    For "custom", FILE with its suffix replaced by .json holds the SamConfig.

    Raises:
        InputError: the kind is unknown, or the config cannot be used.
        CheckpointError: the checkpoint is damaged, holds code, or has other sizes.
    """
    kind, file = split_kind(spec, {**SAM_CONFIGS, CUSTOM: None}, "SAM")
    config = SAM_CONFIGS[kind] if kind in SAM_CONFIGS else read_config(file.with_suffix(".json"), SamConfig)
    return load_network(file, kind, sam_architecture(config), KNOWN, report), config


def write_encoder(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export the graph from uint8 [B, h, w, 3] with max(h, w) == image_size to image_embeddings [B, C, e, e].

    Raises:
        InputError: the encoder's embedding has another size than the config says.
        ExportError: the graph differs from PyTorch.
    """
    size = config.image_size
    random = torch.Generator().manual_seed(0)

    def images(count: int, height: int, width: int) -> Tensor:
        shape = count, max(height, 1), max(width, 1), 3
        return torch.randint(0, 256, shape, generator=random).to(torch.uint8)

    graph, plain = encoder_graphs(sam, config)
    axes: Axes = {0: ("batch", MAX_IMAGES), 1: ("height", size), 2: ("width", size)}
    parity = export_graph(
        graph,
        (images(2, size - 1, size - 2),),  # unequal sizes below the largest, so that none becomes a constant
        path,
        inputs=("image",),
        outputs=("image_embeddings",),
        dynamic={"image": axes},
        cases=((images(1, size * 3 // 4, size),), (images(3, size, size * 9 // 16),)),
        report=report,
        reference=OneByOne(plain),
    )
    _, *found = output_shape(path, "image_embeddings")
    _, *expected = config.embedding_shape
    if found != expected:
        raise InputError(f"SAM config: the encoder's embedding is {found}, the sizes say {expected}")
    return parity


def encoder_graphs(sam: Any, config: SamConfig) -> tuple[EncoderGraph, EncoderGraph]:
    """Return the image branch that is exported, and the one that defines its answer."""
    plain = EncoderGraph(sam)
    return (EncoderGraph(sam, BandedViT(sam.image_encoder)) if config.encoder == "vit" else plain), plain


def write_decoder(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export the graph from embedding, prompts and masks to low_res_masks [B, 3, 4e, 4e] and pred_iou [B, 3].

    Raises:
        ExportError: the graph differs from PyTorch.
    """

    def case(count: int, points: int, masks: int, has_mask: float) -> tuple[Tensor, ...]:
        return *_random_prompts(config, count, points), *_random_masks(config, masks, has_mask)

    return export_graph(
        DecoderGraph(sam),
        case(6, 5, 3, 1.0),  # two prompts to a mask, or the tracer would confuse their numbers
        path,
        inputs=DECODER_INPUTS,
        outputs=DECODER_OUTPUTS,
        dynamic={**PROMPT_AXES, "mask_input": {0: ("masks", MAX_PROMPTS)}},
        cases=(case(1, 2, 1, 0.0), case(4, 3, 1, 0.0), case(4, 2, 4, 1.0), case(2, 0, 1, 1.0)),
        report=report,
        reference=PlainDecoderGraph(sam),
    )


def write_image_side(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export the graph from image_embeddings to the shared tensors; see maskrt.export.graphs.split_decoder.

    Raises:
        ExportError: the graph differs from PyTorch.
    """
    module = ImageSide(sam)
    embedding = torch.randn(config.embedding_shape, generator=torch.Generator().manual_seed(0))
    return export_graph(
        module,
        (embedding,),
        path,
        inputs=("image_embeddings",),
        outputs=module.names,
        dynamic={},
        cases=((embedding,),),
        report=report,
    )


def write_token_side(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export the graph from prompts and shared tensors to pred_iou and to the inputs of `upscale`.

    Raises:
        ExportError: the graph differs from PyTorch.
    """
    image_side = ImageSide(sam)
    module = TokenSide(sam, image_side.names)

    def case(count: int, points: int) -> tuple[Tensor, ...]:
        embedding, coords, labels = _random_prompts(config, count, points)
        with torch.no_grad():
            shared = dict(zip(image_side.names, image_side(embedding), strict=True))
        return coords, labels, *(shared[name] for name in module.names)

    return export_graph(
        module,
        case(3, 5),
        path,
        inputs=("point_coords", "point_labels", *module.names),
        outputs=module.outputs,
        dynamic=PROMPT_AXES,
        cases=(case(1, 2), case(4, 3)),
        report=report,
    )


def write_upscale(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export the graph from the state of prompts to low_res_masks [B, k, 4e, 4e], compared with the whole decoder's.

    Raises:
        ExportError: the graph differs from PyTorch, or the chain of the three graphs from the single one.
    """
    image_side, whole = ImageSide(sam), DecoderGraph(sam)
    token_side, module = TokenSide(sam, image_side.names), Upscale(sam)

    def case(count: int, points: int, masks: int) -> tuple[Tensor, ...]:
        prompts = _random_prompts(config, count, points)
        with torch.no_grad():
            shared = dict(zip(image_side.names, image_side(prompts[0]), strict=True))
            found = token_side(*prompts[1:], *(shared[name] for name in token_side.names))
            values = dict(zip(token_side.outputs, found, strict=True))
            inputs = tuple((shared | values)[name] for name in module.inputs)
            expected = whole(*prompts, *_random_masks(config, 1, 0.0))
            check_equal("upscale", (module(*inputs), values["pred_iou"]), expected)
        return tuple(v[:, :masks] if name == "kernels" else v for name, v in zip(module.inputs, inputs, strict=True))

    batch, rows = ("prompts", MAX_PROMPTS), ("rows", MAX_POINTS * config.decoder_heads)
    return export_graph(
        module,
        case(4, 2, 2),
        path,
        inputs=module.inputs,
        outputs=("low_res_masks",),
        dynamic={
            "kernels": {0: batch, 1: ("masks", MASKS_PER_POINT)},
            "gains": {0: batch},
            **{name: {0: batch, 1: rows} for name in module.inputs if name not in ("pixels", "kernels", "gains")},
        },
        cases=(case(1, 3, 1), case(3, 2, 3)),
        report=report,
    )


WRITERS: dict[str, Callable[[Any, SamConfig, Path, Report], Parity]] = {
    "encoder": write_encoder,
    "decoder": write_decoder,
    "image_side": write_image_side,
    "token_side": write_token_side,
    "upscale": write_upscale,
}


def _random_prompts(config: SamConfig, count: int, points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make an embedding, point_coords [B, P, 2] and point_labels [B, P] that include padding and corners of boxes."""
    random = torch.Generator().manual_seed(count * MAX_POINTS + points)
    embedding = torch.randn(config.embedding_shape, generator=random)
    coords = torch.rand(count, points, 2, generator=random) * config.image_size
    labels = torch.randint(-1, 4, (count, points), generator=random).float()
    return embedding, coords, labels


def _random_masks(config: SamConfig, count: int, has_mask: float) -> tuple[Tensor, Tensor]:
    """Make mask_input [M, 1, 4e, 4e] and has_mask_input [1]."""
    random = torch.Generator().manual_seed(count)
    side = config.low_res_size
    return torch.randn(count, 1, side, side, generator=random), torch.tensor([has_mask])
