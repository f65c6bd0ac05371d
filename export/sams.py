"""SAM's half of an export: KIND:FILE to a network, and the network to encoder.onnx and decoder.onnx."""

from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from maskrt.export.checkpoints import load_state_dict, load_strict
from maskrt.export.graph import Axes, Report, export_graph, output_shape
from maskrt.export.kinds import KNOWN, split_kind
from maskrt.export.sam import SAM_CONFIGS, DecoderGraph, EncoderGraph, SamConfig, build_sam
from maskrt.runtime.bundle import Parity
from maskrt.runtime.errors import InputError

CUSTOM = "custom"
MAX_CONFIG_BYTES = 1 << 16
MAX_PROMPTS, MAX_POINTS = 4096, 1024


def read_sam(spec: str) -> tuple[Any, SamConfig]:
    """The network of "vit_b:FILE", "vit_l:FILE", "vit_h:FILE" or "custom:FILE", in evaluation mode, and its sizes.

    For "custom", FILE with its suffix replaced by .json holds the SamConfig.

    Raises:
        InputError: unknown kind, or a config that cannot be used.
        CheckpointError: the checkpoint is damaged, holds code, or has other sizes.
    """
    kind, file = split_kind(spec, {**SAM_CONFIGS, CUSTOM: None}, "SAM")
    config = SAM_CONFIGS[kind] if kind in SAM_CONFIGS else read_config(file.with_suffix(".json"))
    state = load_state_dict(file)
    sam = build_sam(config)
    load_strict(sam, state, f"{kind}: {file}", KNOWN)
    return sam, config


def read_config(path: Path) -> SamConfig:
    """A SamConfig from JSON.

    Raises:
        InputError: missing, too large, not JSON, or with unknown or wrong fields.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: a custom SAM needs its sizes beside the checkpoint")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise InputError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes: not a SAM config")
    try:
        return msgspec.json.decode(path.read_bytes(), type=SamConfig)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fields = ", ".join(SamConfig.__struct_fields__)
        raise InputError(f"{path} is not a SAM config: {error}; fields: {fields}") from error


def write_encoder(
    sam: Any, config: SamConfig, path: Path, report: Report, name: str = "image", dtype: torch.dtype = torch.uint8
) -> Parity:
    """Export image [h, w, 3] with max(h, w) == image_size -> image_embeddings [1, C, e, e].

    Raises:
        InputError: the encoder's embedding is not of the size that the config says.
        ExportError: the graph differs from PyTorch.
    """
    size = config.image_size
    random = torch.Generator().manual_seed(0)

    def image(height: int, width: int) -> Tensor:
        return torch.randint(0, 256, (max(height, 1), max(width, 1), 3), generator=random).to(dtype)

    axes: Axes = {0: ("height", size), 1: ("width", size)}
    parity = export_graph(
        EncoderGraph(sam),
        (image(size - 1, size - 2),),  # two unequal sizes below the largest, so that neither becomes a constant
        path,
        inputs=(name,),
        outputs=("image_embeddings",),
        dynamic={name: axes},
        cases=((image(size * 3 // 4, size),), (image(size, size * 9 // 16),)),
        report=report,
    )
    found = output_shape(path, "image_embeddings")
    if found != config.embedding_shape:
        raise InputError(f"SAM config: the encoder's embedding is {found}, the sizes say {config.embedding_shape}")
    return parity


def write_decoder(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export embedding and prompts -> low_res_masks [B, 3, 4e, 4e] and pred_iou [B, 3].

    Raises:
        ExportError: the graph differs from PyTorch.
    """
    random = torch.Generator().manual_seed(0)

    def prompts(count: int, points: int) -> tuple[Tensor, Tensor, Tensor]:
        embedding = torch.randn(config.embedding_shape, generator=random)
        coords = torch.rand(count, points, 2, generator=random) * config.image_size
        labels = torch.randint(-1, 4, (count, points), generator=random).float()
        return embedding, coords, labels

    batch, points = ("prompts", MAX_PROMPTS), ("points", MAX_POINTS)
    return export_graph(
        DecoderGraph(sam),
        prompts(3, 5),
        path,
        inputs=("image_embeddings", "point_coords", "point_labels"),
        outputs=("low_res_masks", "pred_iou"),
        dynamic={"point_coords": {0: batch, 1: points}, "point_labels": {0: batch, 1: points}},
        cases=(prompts(1, 2), prompts(4, 3)),
        report=report,
    )
