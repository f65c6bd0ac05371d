"""A bundle of a tiny SAM with random weights, exported for real: encoder, click decoder, and step."""

import json
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file

from maskrt.export.architectures.sam import SamConfig, build_sam
from maskrt.export.bundles.interactive import export_interactive

SAID = "said.json"
TINY = SamConfig(
    image_size=64,
    prompt_dim=32,
    embed_dim=32,
    depth=1,
    heads=2,
    global_attn_indexes=(0,),
    decoder_heads=2,
    decoder_mlp_dim=48,
    iou_head_dim=24,
)


def write_tiny_sam(folder: Path, seed: int = 0) -> str:
    """A checkpoint of random weights and its sizes: the KIND:FILE of an export."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    file = folder / "sam.safetensors"
    save_file(build_sam(TINY).state_dict(), file)
    file.with_suffix(".json").write_bytes(msgspec.json.encode(TINY))
    return f"custom:{file}"


def write_tiny_interactive(folder: Path) -> None:
    """Write FOLDER/bundle, its checkpoint, and FOLDER/SAID: the lines that the export has said."""
    lines: list[str] = []
    export_interactive(write_tiny_sam(folder), folder / "bundle", report=lines.append)
    (folder / SAID).write_text(json.dumps(lines))
