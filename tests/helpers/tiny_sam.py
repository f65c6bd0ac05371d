"""A SAM with random weights that is exported in seconds: its checkpoint, and the graphs of its encoder and decoders."""

from pathlib import Path
from typing import Any

import msgspec
import torch
from scrambled import scrambled_weights

from maskrt.export.architectures.sam import SAM_CONFIGS, SamConfig, build_sam
from maskrt.export.bundles.sams import WRITERS, write_decoder

# Global and windowed attention, and windows of 3 that need padding.
TINY_SAM = SamConfig(
    image_size=128,
    embed_dim=32,
    depth=2,
    heads=2,
    global_attn_indexes=(1,),
    window_size=3,
    prompt_dim=32,
    decoder_mlp_dim=64,
    decoder_heads=4,
    iou_head_dim=32,
)
# The three official sizes share one decoder; their encoders are not needed here.
OFFICIAL = msgspec.structs.replace(SAM_CONFIGS["vit_b"], encoder="resnet", width_mult=0.125, feature_channels=8)
SOURCES = ("tiny_sam.py", "scrambled.py")  # decide the files, beside the exporter
MAX_REL = 1e-5  # of the largest output


def build_scrambled(config: SamConfig, seed: int = 0) -> Any:
    """Build a SAM whose every weight counts, the same for the same seed."""
    torch.manual_seed(seed)
    return scrambled_weights(build_sam(config), seed)


def write_checkpoint(folder: Path, config: SamConfig) -> str:
    """Write a checkpoint with its config beside it; return the KIND:FILE of an export."""
    torch.save(build_scrambled(config).state_dict(), folder / "sam.pth")
    (folder / "sam.json").write_bytes(msgspec.json.encode(config))
    return f"custom:{folder / 'sam.pth'}"


def write_graphs(folder: Path) -> None:
    """Write FOLDER/ROLE.onnx for every graph of the tiny SAM."""
    sam = build_scrambled(TINY_SAM)
    for role, write in WRITERS.items():
        parity = write(sam, TINY_SAM, folder / f"{role}.onnx", lambda _: None)
        assert parity.max_rel < MAX_REL, (role, parity)


def write_official_size(folder: Path) -> None:
    """Write FOLDER/decoder.onnx of the official size, with the weights of seed 3."""
    write_decoder(build_scrambled(OFFICIAL, 3), OFFICIAL, folder / "decoder.onnx", lambda _: None)
