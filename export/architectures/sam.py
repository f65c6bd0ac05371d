"""SAM of any size, and the graph of its image encoder; maskrt.export.graphs.decoder has that of its decoder.

The network is segment_anything's own code. Its package cannot be imported where torchvision does not work, so its
`modeling` subpackage, which needs PyTorch only, is loaded under a private name: `sys.modules["segment_anything"]` is
neither needed nor touched, and whoever imports the real package before or after gets the real one.

Source: Kirillov et al. 2023, "Segment Anything"; segment_anything 1.0 defines every answer here.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.runtime.errors import InputError

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_ALIAS = "maskrt_segment_anything"


class SamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The sizes of a SAM; the defaults are those that ViT-B, -L and -H share.

    encoder "vit" reads embed_dim, depth, heads, global_attn_indexes and window_size; "resnet" reads width_mult
    and feature_channels (maskrt.export.architectures.resnet_encoder). The embedding's side is image_size / patch_size,
    for both.
    """

    encoder: Literal["vit", "resnet"] = "vit"
    image_size: int = 1024
    patch_size: int = 16
    prompt_dim: int = 256
    embed_dim: int = 0
    depth: int = 0
    heads: int = 0
    global_attn_indexes: tuple[int, ...] = ()
    window_size: int = 14
    width_mult: float = 0
    feature_channels: int = 0
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    iou_head_dim: int = 256
    mask_in_chans: int = 16

    @property
    def embedding_size(self) -> int:
        """Side of the image embedding."""
        return self.image_size // self.patch_size

    @property
    def embedding_shape(self) -> tuple[int, int, int, int]:
        """Shape of the image embedding, [1, C, e, e]."""
        return 1, self.prompt_dim, self.embedding_size, self.embedding_size

    @property
    def low_res_size(self) -> int:
        """Side of the decoder's masks: the embedding upscaled four times."""
        return 4 * self.embedding_size


SAM_CONFIGS = {
    "vit_b": SamConfig(embed_dim=768, depth=12, heads=12, global_attn_indexes=(2, 5, 8, 11)),
    "vit_l": SamConfig(embed_dim=1024, depth=24, heads=16, global_attn_indexes=(5, 11, 17, 23)),
    "vit_h": SamConfig(embed_dim=1280, depth=32, heads=16, global_attn_indexes=(7, 15, 23, 31)),
}


def upstream_modeling() -> ModuleType:
    """Load segment_anything.modeling without its parent package.

    Raises:
        InputError: segment_anything is not installed.
    """
    if _ALIAS not in sys.modules:
        spec = importlib.util.find_spec("segment_anything")  # finds the package without running its __init__
        if spec is None or spec.submodule_search_locations is None:
            raise InputError("segment_anything is not installed: install maskrt[export]")
        parent = ModuleType(_ALIAS)
        parent.__path__ = list(spec.submodule_search_locations)
        sys.modules[_ALIAS] = parent
    return importlib.import_module(f"{_ALIAS}.modeling")


def build_sam(config: SamConfig) -> Any:
    """Build segment_anything's `Sam` in the sizes of a config, with random weights, in evaluation mode.

    Raises:
        InputError: the sizes do not fit together.
    """
    _check(config)
    modeling = upstream_modeling()
    side = config.embedding_size
    sam = modeling.Sam(
        image_encoder=_ENCODERS[config.encoder](config),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=config.prompt_dim,
            image_embedding_size=(side, side),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_in_chans,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.prompt_dim,
                mlp_dim=config.decoder_mlp_dim,
                num_heads=config.decoder_heads,
            ),
            transformer_dim=config.prompt_dim,
            iou_head_depth=3,
            iou_head_hidden_dim=config.iou_head_dim,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    return sam.eval()


def _vit_encoder(config: SamConfig) -> nn.Module:
    encoder: nn.Module = upstream_modeling().ImageEncoderViT(
        depth=config.depth,
        embed_dim=config.embed_dim,
        img_size=config.image_size,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=config.heads,
        patch_size=config.patch_size,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=config.global_attn_indexes,
        window_size=config.window_size,
        out_chans=config.prompt_dim,
    )
    return encoder


def _resnet_encoder(config: SamConfig) -> nn.Module:
    from maskrt.export.architectures.resnet_encoder import (
        ResnetEncoder,  # the demo's encoder: only a "resnet" config needs it
    )

    return ResnetEncoder(config.prompt_dim, config.width_mult, config.feature_channels, config.image_size)


_ENCODERS: dict[str, Callable[[SamConfig], nn.Module]] = {"vit": _vit_encoder, "resnet": _resnet_encoder}


def _check(config: SamConfig) -> None:
    sizes = ["image_size", "patch_size", "prompt_dim", "decoder_depth", "decoder_heads", "decoder_mlp_dim"]
    sizes += ["iou_head_dim", "embed_dim", "depth", "heads"] if config.encoder == "vit" else ["iou_head_dim"]
    for name in sizes:
        if getattr(config, name) < 1:
            raise InputError(f"SAM config: {name} is {getattr(config, name)}, it must be at least 1")
    if config.image_size % config.patch_size:
        raise InputError(f"SAM config: image_size {config.image_size} is no multiple of patch_size {config.patch_size}")
    if config.prompt_dim % (2 * config.decoder_heads) or config.prompt_dim % 8:
        raise InputError(f"SAM config: prompt_dim {config.prompt_dim} must divide by 8 and by 2 * decoder_heads")
    if config.mask_in_chans < 4 or config.mask_in_chans % 4:
        raise InputError(f"SAM config: mask_in_chans {config.mask_in_chans} must be a multiple of 4")
    if config.encoder == "vit" and config.embed_dim % config.heads:
        raise InputError(f"SAM config: embed_dim {config.embed_dim} is no multiple of heads {config.heads}")
    if config.encoder == "resnet" and (
        config.patch_size != 16 or config.width_mult <= 0 or config.feature_channels < 1
    ):
        raise InputError(
            "SAM config: a resnet encoder needs patch_size 16, and width_mult and feature_channels above 0"
        )


class EncoderGraph(nn.Module):
    """The image branch from pixels: normalise, pad on the right and below, encode. Source: Sam.preprocess."""

    mean: Tensor
    std: Tensor

    def __init__(self, sam: Any, encoder: nn.Module | None = None) -> None:
        """Keep the parts. encoder: replaces the image encoder of `sam`, with the same answer."""
        super().__init__()
        self.encoder = encoder or sam.image_encoder
        self.image_size = int(sam.image_encoder.img_size)
        self.register_buffer("mean", sam.pixel_mean.clone(), persistent=False)
        self.register_buffer("std", sam.pixel_std.clone(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 [B, h, w, 3] RGB with max(h, w) == image_size to image_embeddings float32 [B, C, e, e]."""
        # The type first: TensorRT takes uint8 as an input, but moves and computes nothing in it.
        pixels = (image.to(torch.float32).permute(0, 3, 1, 2) - self.mean) / self.std
        # Padding comes after normalising: the pad is the mean colour, not black.
        pad = (0, self.image_size - image.shape[2], 0, self.image_size - image.shape[1])
        embeddings: Tensor = self.encoder(functional.pad(pixels, pad))
        return embeddings
