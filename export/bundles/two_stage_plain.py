"""The two-stage document's order of computation in PyTorch, with which an export is compared."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from maskrt.kernels.patches.reference import STEP
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec, TwoStageSpec


@torch.no_grad()
def look_plainly(
    low: nn.Module, high: nn.Module, spec: TwoStageSpec, selection: PatchSelectionSpec, rgb: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Return class probabilities float32 [C, H, W] of a picture uint8 [H, W, 3], patch by patch.

    Patches lie on the grid, whatever selection.windows says. The computation is the one that
    maskrt.runtime.pipelines.two_stage.segmenter describes. The public code differs in two things: it ranks logits
    (selection.rank), and it resizes with scikit-image.
    """
    height, width = rgb.shape[:2]
    working = [spec.size, spec.size]
    if spec.fit == "keep":
        scale = spec.size / max(height, width)
        working = [max(1, int(side * scale + 0.5)) for side in (height, width)]
    small = [max(1, (2 * side + spec.shrink) // (2 * spec.shrink)) for side in working]
    logits = low(_padded(_picture(rgb, small, spec), spec.multiple))[..., : small[0], : small[1]]
    probability = functional.interpolate(_probabilities(logits), working, mode="bilinear", align_corners=False)
    ranked = probability[:, 1]
    if selection.rank == "logit":
        odds = logits if logits.shape[1] == 1 else logits[:, 1:] - logits[:, :1]
        ranked = functional.interpolate(odds, working, mode="bilinear", align_corners=False)[:, 0]
    side = spec.size // selection.patches
    picture = _padded(_picture(rgb, working, spec), side)
    corners = [(y, x) for y in range(0, working[0], side) for x in range(0, working[1], side)]
    if len(spec.classes) == 2:
        means = [ranked[0, y : y + side, x : x + side].double().mean() for y, x in corners]
        sureness = [float((2 * mean - 1).abs()) for mean in means]
    else:
        means = [probability[0, :, y : y + side, x : x + side].double().mean((1, 2)) for y, x in corners]
        sureness = [1 + float(torch.special.xlogy(mean, mean).sum()) / np.log(len(spec.classes)) for mean in means]
    # In steps, like the runtime: values that differ by rounding alone are equal, and the first in reading order wins.
    steps = np.rint(np.array(sureness) / STEP)
    for index in np.argsort(steps, kind="stable")[: selection.budget(len(corners))]:
        if selection.uncertainty is not None and steps[index] * STEP > 2 * selection.uncertainty:
            break
        y, x = corners[index]
        patch = _probabilities(high(picture[..., y : y + side, x : x + side]))
        inside = probability[..., y : y + side, x : x + side]
        inside.copy_(patch[..., : inside.shape[2], : inside.shape[3]])
    return functional.interpolate(probability, (height, width), mode="bilinear", align_corners=False)[0].numpy()


def _picture(rgb: NDArray[np.uint8], size_hw: list[int], spec: TwoStageSpec) -> tuple[Tensor, TwoStageSpec]:
    image = Image.fromarray(rgb).convert("L" if spec.channels == 1 else "RGB")
    values = np.asarray(image.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR), np.float32)
    return torch.from_numpy(values.reshape(*size_hw, spec.channels).transpose(2, 0, 1)[None] / 255), spec


def _padded(picture: tuple[Tensor, TwoStageSpec], multiple: int) -> Tensor:
    """Pad with black on the right and below up to multiples, then normalise."""
    values, spec = picture
    missing = [-side % multiple for side in values.shape[2:]]
    values = functional.pad(values, (0, missing[1], 0, missing[0]))
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (spec.mean, spec.std))
    return (values - mean) / std


def _probabilities(logits: Tensor) -> Tensor:
    """Return probabilities [1, C, H, W] of logits [1, C, H, W], or of one logit for two classes."""
    if logits.shape[1] > 1:
        return logits.softmax(1)
    return torch.cat([(-logits).sigmoid(), logits.sigmoid()], 1)
