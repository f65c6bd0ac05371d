"""Export a SAM for AnyLabeling and X-AnyLabeling, with their graph names, encoder input and config file.

Both load a folder's YAML and two ONNX files. They feed the encoder float32 [h, w, 3] RGB pixels, at most 1024 on the
longest side. The decoder gets the six inputs of segment_anything's official ONNX model with one image and one object,
and they show the first mask that it returns.

Source: anylabeling/services/auto_labeling/{sam_onnx,segment_anything}.py of vietanhdev/anylabeling and
CVHub520/X-AnyLabeling; segment_anything.utils.onnx.SamOnnxModel defines the decoder's answer.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.architectures.sam import EncoderGraph, SamConfig
from maskrt.export.bundles.entries import fitness_lines
from maskrt.export.bundles.folder import whole_folder
from maskrt.export.bundles.sams import MAX_POINTS, encoder_graphs, read_sam
from maskrt.export.graph_tools.fitness import findings
from maskrt.export.graph_tools.graph import export_graph
from maskrt.export.graphs.decoder import DECODER_INPUTS, DecoderGraph
from maskrt.runtime.bundle.manifest import Parity
from maskrt.runtime.errors import InputError
from maskrt.runtime.types import Report

IMAGE_SIZE = 1024  # written into both programs, as is the 256 of the mask input
MAX_SIDE = 16384  # of the picture that the masks are drawn for
INPUTS = (*DECODER_INPUTS, "orig_im_size")
OUTPUTS = ("masks", "iou_predictions", "low_res_masks")
CONFIG = "config.yaml"


class OfficialEncoderGraph(nn.Module):
    """The encoder for one picture of their shape and type."""

    def __init__(self, graph: EncoderGraph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, image: Tensor) -> Tensor:
        """Map float32 [h, w, 3] RGB with max(h, w) == image_size to image_embeddings float32 [1, C, e, e]."""
        embeddings: Tensor = self.graph(image[None])
        return embeddings


class OfficialDecoderGraph(nn.Module):
    """SamOnnxModel(return_single_mask=True): maps one object's prompts to one mask at the picture's size."""

    bonus: Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.prompts = DecoderGraph(sam)
        self.decoder = sam.mask_decoder
        self.image_size = int(sam.image_encoder.img_size)
        self.register_buffer("bonus", torch.tensor([[1000.0, 0.0, 0.0, 0.0]]), persistent=False)

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return one object's mask, score and low-resolution logits, all with the leading axes [1, 1].

        Args:
            image_embeddings: [1, C, e, e]; point_coords: [1, P, 2]; point_labels: [1, P]; mask_input: [1, 1, 4e, 4e];
            has_mask_input: [1], 0 or 1; orig_im_size: [2], height and width of the picture. All float32.
        """
        masks, scores = self.decoder.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self.prompts.dense_pe,
            sparse_prompt_embeddings=self.prompts.embed_prompts(point_coords, point_labels),
            dense_prompt_embeddings=self.prompts.embed_mask(mask_input, has_mask_input),
        )
        # With one or two points the best of the three ambiguous masks, with more the single one, as SamOnnxModel picks.
        best = torch.argmax(scores + (point_coords.shape[1] - 2.5) * self.bonus, dim=1)
        low_res = torch.index_select(masks, 1, best)
        return self._upscaled(low_res, orig_im_size), torch.index_select(scores, 1, best), low_res

    def _upscaled(self, low_res: Tensor, orig_im_size: Tensor) -> Tensor:
        size = self.image_size
        masks = functional.interpolate(low_res, (size, size), mode="bilinear", align_corners=False)
        scale = size / orig_im_size.max()
        height, width = _sizes(torch.floor(scale * orig_im_size + 0.5), size)
        return functional.interpolate(
            masks[..., :height, :width], _sizes(orig_im_size, MAX_SIDE), mode="bilinear", align_corners=False
        )


def _sizes(hw: Tensor, largest: int) -> tuple[Any, Any]:
    """Return two values of a tensor as sizes. The checks give torch.export their range: it cannot see the values."""
    whole = hw.to(torch.int64)
    height, width = whole[0].item(), whole[1].item()  # not int(): that would ask for the value
    for side in (height, width):
        torch._check(side >= 1)  # type: ignore[no-untyped-call]  # torch has not typed it
        torch._check(side <= largest)  # type: ignore[no-untyped-call]
    return height, width


def export_anylabeling(
    sam: str, out: Path, *, name: str, overwrite: bool = False, report: Report = lambda _: None
) -> tuple[Path, ...]:
    """Write NAME.encoder.onnx, NAME.decoder.onnx and config.yaml into the folder `out`, all or nothing.

    Returns:
        The three paths.

    Raises:
        InputError: the name is not a plain file name, the SAM has another image size, or `out` is taken.
        CheckpointError: the checkpoint cannot be loaded.
        ExportError: an exported graph differs from PyTorch.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(f"name {name!r}: use letters, digits, '_', '-' and '.'")
    network, config = read_sam(sam, report)
    if config.image_size != IMAGE_SIZE or config.low_res_size != 256:
        raise InputError(f"AnyLabeling feeds every SAM {IMAGE_SIZE} pixels; this one takes {config.image_size}")
    files = f"{name}.encoder.onnx", f"{name}.decoder.onnx", CONFIG
    with whole_folder(out, overwrite=overwrite, ours=_is_ours) as folder:
        write_official_encoder(network, config, folder / files[0], report)
        write_official_decoder(network, config, folder / files[1], report)
        for line in fitness_lines({file: findings(folder / file) for file in files[:2]}):
            report(line)
        (folder / CONFIG).write_text(_config(name), encoding="utf-8")
    return tuple(Path(out) / file for file in files)


def write_official_encoder(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export the graph from input_image float32 [h, w, 3], max(h, w) == image_size, to image_embeddings [1, C, e, e].

    Raises:
        ExportError: the graph differs from PyTorch.
    """
    size = config.image_size
    random = torch.Generator().manual_seed(0)

    def image(height: int, width: int) -> Tensor:
        return torch.randint(0, 256, (height, width, 3), generator=random).to(torch.float32)

    graph, plain = encoder_graphs(sam, config)
    return export_graph(
        OfficialEncoderGraph(graph),
        (image(size - 1, size - 2),),  # two unequal sizes below the largest, so that neither becomes a constant
        path,
        inputs=("input_image",),
        outputs=("image_embeddings",),
        dynamic={"input_image": {0: ("height", size), 1: ("width", size)}},
        cases=((image(size * 3 // 4, size),), (image(size, size * 9 // 16),)),
        report=report,
        reference=OfficialEncoderGraph(plain),
    )


def write_official_decoder(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export the decoder under segment_anything's official names; only the number of points is dynamic.

    Raises:
        ExportError: the graph differs from PyTorch.
    """
    random = torch.Generator().manual_seed(0)

    def case(points: int, has_mask: float, height: float, width: float) -> tuple[Tensor, ...]:
        side = config.low_res_size
        return (
            torch.randn(config.embedding_shape, generator=random),
            torch.rand(1, points, 2, generator=random) * config.image_size,
            torch.randint(-1, 4, (1, points), generator=random).float(),
            torch.randn(1, 1, side, side, generator=random),
            torch.tensor([has_mask]),
            torch.tensor([height, width]),
        )

    return export_graph(
        OfficialDecoderGraph(sam),
        case(5, 1.0, 500.0, 700.0),
        path,
        inputs=INPUTS,
        outputs=OUTPUTS,
        dynamic={"point_coords": {1: ("num_points", MAX_POINTS)}, "point_labels": {1: ("num_points", MAX_POINTS)}},
        cases=(case(2, 0.0, 684.0, 1024.0), case(4, 1.0, 333.0, 200.0)),
        report=report,
    )


def _config(name: str) -> str:
    # input_size and the maxima are read by X-AnyLabeling and older AnyLabeling; paths are relative to this file.
    return (
        f"type: segment_anything\nname: {name}\ndisplay_name: {name} (maskrt)\n"
        f"encoder_model_path: {name}.encoder.onnx\ndecoder_model_path: {name}.decoder.onnx\n"
        f"input_size: {IMAGE_SIZE}\nmax_width: {IMAGE_SIZE}\nmax_height: 682\n"
    )


def _is_ours(path: Path) -> bool:
    config = path / CONFIG
    return config.is_file() and config.read_bytes()[:100].startswith(b"type: segment_anything")
