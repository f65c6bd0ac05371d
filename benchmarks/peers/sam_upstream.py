"""segment_anything's own mask generator, importable without torchvision.

Its package imports torchvision for four small functions, and no working torchvision exists for the CPU build of
PyTorch that export is pinned to (importing it fails with "operator torchvision::nms does not exist"). So where
torchvision does not import, plain stand-ins for those four are in `sys.modules` while segment_anything is imported, and
are removed again, so that no other library mistakes them for the real one. Upstream's code itself runs unaltered. The
stand-ins share no code with maskrt: they are part of its peer.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskrt.runtime.bundle.specs import MasksSpec


def upstream_generator(sam: torch.nn.Module, masks: MasksSpec) -> Any:
    """Make a SamAutomaticMaskGenerator with a bundle's settings and uncompressed RLE. Its prompts are always the grid.

    Args:
        sam: a segment_anything Sam.
        masks: the settings.
    """
    with torchvision_or_stand_ins():
        from segment_anything.automatic_mask_generator import SamAutomaticMaskGenerator
    return SamAutomaticMaskGenerator(
        sam,
        points_per_side=masks.points_per_side,
        points_per_batch=masks.points_per_batch,
        pred_iou_thresh=masks.pred_iou_thresh,
        stability_score_thresh=masks.stability_score_thresh,
        stability_score_offset=masks.stability_score_offset,
        box_nms_thresh=masks.box_nms_thresh,
        min_mask_region_area=masks.min_mask_region_area,
        crop_n_layers=masks.crop_n_layers,
        crop_overlap_ratio=masks.crop_overlap_ratio,
        crop_n_points_downscale_factor=masks.crop_n_points_downscale_factor,
        output_mode="uncompressed_rle",
    )


@contextmanager
def torchvision_or_stand_ins() -> Iterator[None]:
    """Let segment_anything be imported in the block, whether or not torchvision works."""
    if _torchvision_imports():
        yield
        return
    stand_ins = _stand_ins()
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def box_area(boxes: torch.Tensor) -> torch.Tensor:
    """Return the areas [N] of boxes [N, 4] xyxy."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Return the boxes that greedy suppression keeps within each category `idxs`, as indices by descending score.

    Source: torchvision.ops.batched_nms as documented, in float32 throughout.
    """
    left = torch.sort(scores, descending=True, stable=True).indices
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        overlaps = _iou(boxes[best], boxes[left]).double() > iou_threshold
        left = left[~(overlaps & (idxs[left] == idxs[best]))]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64)


def resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize a PIL image to (height, width) with Pillow's bilinear filter, as torchvision does."""
    return picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def to_pil_image(picture: np.ndarray) -> Image.Image:
    """Make a PIL image of uint8 [H, W, 3]."""
    return Image.fromarray(picture)


def _iou(box: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    sides = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp(min=0)
    shared = sides.prod(dim=1)
    return shared / (box_area(box[None]) + box_area(others) - shared)


def _torchvision_imports() -> bool:
    before = set(sys.modules)
    try:
        importlib.import_module("torchvision.ops.boxes")
        importlib.import_module("torchvision.transforms.functional")
    except (ImportError, RuntimeError):  # RuntimeError: its operators do not match this PyTorch
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "torchvision":
                del sys.modules[name]
        return False
    return True


def _stand_ins() -> dict[str, ModuleType]:
    names = ["torchvision", "torchvision.ops", "torchvision.ops.boxes"]
    names += ["torchvision.transforms", "torchvision.transforms.functional"]
    modules = {name: ModuleType(name, "maskrt's stand-in") for name in names}
    vars(modules["torchvision.ops.boxes"]).update(batched_nms=batched_nms, box_area=box_area)
    vars(modules["torchvision.transforms.functional"]).update(resize=resize, to_pil_image=to_pil_image)
    return modules
